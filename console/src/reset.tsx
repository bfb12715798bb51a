// Other offsets for a group, shown before they are set.
import { useEffect, useState } from 'preact/hooks'
import { admin } from './admin.js'
import { count, localTime, shown } from './format.js'
import type { Position } from './groups.js'
import { client } from './link.js'
import { Dialog, Field, Form } from './form.js'
import { useSome } from './some.js'
import { Failure, Waiting, say } from './ui.js'

type To = 'earliest' | 'latest' | 'time' | 'offset' | 'shift'

interface Planned extends Position {
  to: bigint
}

const clamp = (n: bigint, p: Position): bigint => (n < p.start ? p.start : n > p.end ? p.end : n)

async function plan(positions: Position[], to: To, value: string, signal: AbortSignal): Promise<Planned[]> {
  const all: Planned[] = []
  for (const topic of new Set(positions.map(p => p.topic))) {
    const of = positions.filter(p => p.topic === topic)
    const at = to === 'time' ? await client.listOffsets(topic, Date.parse(value), of.map(p => p.partition), { signal, timeoutMs: 10_000 }) : undefined
    for (const p of of) {
      let n: bigint
      if (to === 'earliest') n = p.start
      else if (to === 'latest') n = p.end
      else if (to === 'offset') n = clamp(BigInt(value), p)
      else if (to === 'shift') n = clamp((p.committed < 0n ? p.end : p.committed) + BigInt(value), p)
      else n = at!.get(p.partition)!.offset < 0n ? p.end : at!.get(p.partition)!.offset
      all.push({ ...p, to: n })
    }
  }
  return all
}

function fault(to: To, value: string): string | undefined {
  if (to === 'time') return Number.isNaN(Date.parse(value)) ? 'A time' : undefined
  if (to === 'offset') return /^\d{1,18}$/.test(value) ? undefined : 'A number, 0 or more'
  if (to === 'shift') return /^-?\d{1,18}$/.test(value) ? undefined : 'A number; negative ones go back'
  return undefined
}

export function Reset(p: { group: string; positions: Position[]; onClose: () => void; onDone: () => void }) {
  const topics = [...new Set(p.positions.map(c => c.topic))]
  const [topic, setTopic] = useState('')
  const [to, setTo] = useState<To>('earliest')
  const [value, setValue] = useState('')
  const [planned, setPlanned] = useState<Planned[]>()
  const [error, setError] = useState<Error>()
  // As they were when the dialog was opened: what is previewed is what is set.
  const [positions] = useState(p.positions)
  const wrong = fault(to, value)
  useEffect(() => {
    setPlanned(undefined)
    setError(undefined)
    if (wrong) return
    const control = new AbortController()
    const chosen = positions.filter(c => !topic || c.topic === topic)
    plan(chosen, to, value, control.signal).then(setPlanned, e => !control.signal.aborted && setError(e as Error))
    return () => control.abort()
  }, [topic, to, value])
  const submit = async (): Promise<void> => {
    // Whoever has joined meanwhile has offsets of its own in mind.
    const [group] = await admin.describeGroups([p.group])
    if (group.members.length) throw new Error('somebody is in the group now')
    await admin.setGroupOffsets(p.group, planned!.map(c => ({ topic: c.topic, partition: c.partition, offset: c.to })))
    say('The offsets are set')
    p.onDone()
    p.onClose()
  }
  return (
    <Dialog title={`Reset offsets of ${shown(p.group)}`} onClose={p.onClose} wide>
      <Form submit="Set these offsets" danger ready={!wrong && !!planned?.length} onSubmit={submit} onCancel={p.onClose}>
        <div class="pair">
          <Field label="Topic">
            {id => (
              <select id={id} value={topic} onChange={e => setTopic(e.currentTarget.value)}>
                <option value="">all of the group</option>
                {topics.map(t => (
                  <option value={t}>{shown(t)}</option>
                ))}
              </select>
            )}
          </Field>
          <Field label="Go on at">
            {id => (
              <select
                id={id} value={to}
                onChange={e => {
                  const next = e.currentTarget.value as To
                  setTo(next)
                  setValue(next === 'time' ? localTime(Date.now() - 3_600_000) : next === 'shift' ? '-100' : next === 'offset' ? '0' : '')
                }}
              >
                <option value="earliest">the oldest record</option>
                <option value="latest">the end</option>
                <option value="time">a time</option>
                <option value="offset">an offset</option>
                <option value="shift">so many records further</option>
              </select>
            )}
          </Field>
        </div>
        {(to === 'time' || to === 'offset' || to === 'shift') && (
          <Field label={to === 'time' ? 'Time' : to === 'offset' ? 'Offset' : 'Records'} error={wrong} hint="Within what the log has.">
            {id => <input id={id} type={to === 'time' ? 'datetime-local' : 'number'} step="1" value={value} onInput={e => setValue(e.currentTarget.value)} />}
          </Field>
        )}
        {error ? <Failure error={error} /> : planned ? <Preview planned={planned} /> : !wrong && <Waiting />}
      </Form>
    </Dialog>
  )
}

function Preview({ planned }: { planned: Planned[] }) {
  const [some, more] = useSome(planned, 5)
  return (
    <div class="scroll preview">
      <table>
        <thead>
          <tr>
            <th scope="col">Topic</th>
            <th scope="col" class="number">Partition</th>
            <th scope="col" class="number">Now</th>
            <th scope="col" class="number">Then</th>
            <th scope="col" class="number">Behind</th>
          </tr>
        </thead>
        <tbody>
          {some.map(c => (
            <tr key={`${c.topic}/${c.partition}`}>
              <td>{shown(c.topic)}</td>
              <td class="number">{c.partition}</td>
              <td class="number">{c.committed < 0n ? 'nothing' : count(c.committed)}</td>
              <td class="number">
                <strong>{count(c.to)}</strong>
              </td>
              <td class="number">{count(c.end - c.to)}</td>
            </tr>
          ))}
          {more}
        </tbody>
      </table>
    </div>
  )
}
