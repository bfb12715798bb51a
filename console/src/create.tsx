// A topic is made.
import { useState } from 'preact/hooks'
import { admin } from './admin.js'
import { status, topics } from './cluster.js'
import { Dialog, Field, Form } from './form.js'
import { go } from './state.js'
import { say } from './ui.js'

function nameFault(name: string): string | undefined {
  // Kafka's Topic.validate
  if (name === '.' || name === '..' || name.length > 249) return 'At most 249 characters, and not "." or ".."'
  return /^[a-zA-Z0-9._-]*$/.test(name) ? undefined : 'Letters, digits, ".", "_" and "-"'
}

export function Create({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState('')
  const [partitions, setPartitions] = useState('')
  const [factor, setFactor] = useState('')
  const [retention, setRetention] = useState('')
  const fault = nameFault(name)
  const submit = async (): Promise<void> => {
    await admin.createTopics([{
      topic: name,
      partitions: partitions ? Number(partitions) : undefined,
      replicationFactor: factor ? Number(factor) : undefined,
      configs: retention ? { 'retention.ms': retention } : {},
    }])
    say(`Topic ${name} is created`)
    void topics.refresh()
    void status.refresh()
    go(['topics', name])
  }
  return (
    <Dialog title="Create a topic" onClose={onClose}>
      <Form submit="Create" ready={name !== '' && !fault} onSubmit={submit} onCancel={onClose}>
        <Field label="Name" error={fault}>
          {id => <input id={id} name="name" value={name} onInput={e => setName(e.currentTarget.value)} spellcheck={false} autocapitalize="none" />}
        </Field>
        <div class="pair">
          <Field label="Partitions" hint="empty: the cluster's default">
            {id => <input id={id} name="partitions" type="number" min={1} value={partitions} onInput={e => setPartitions(e.currentTarget.value)} />}
          </Field>
          <Field label="Replicas of each" hint="empty: the cluster's default">
            {id => <input id={id} name="factor" type="number" min={1} value={factor} onInput={e => setFactor(e.currentTarget.value)} />}
          </Field>
        </div>
        <Field label="Records are kept for" hint="More can be set when it is there.">
          {id => (
            <select id={id} value={retention} onChange={e => setRetention(e.currentTarget.value)}>
              <option value="">the cluster's default</option>
              <option value="3600000">an hour</option>
              <option value="86400000">a day</option>
              <option value="604800000">a week</option>
              <option value="2592000000">30 days</option>
              <option value="-1">ever</option>
            </select>
          )}
        </Field>
      </Form>
    </Dialog>
  )
}
