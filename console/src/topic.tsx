// One topic: its messages, partitions and configuration.
import { useEffect, useMemo, useState } from 'preact/hooks'
import { admin } from './admin.js'
import { status, topics, troubled, type Partition, type Replica } from './cluster.js'
import { bytes, count, duration, plural, short, shown } from './format.js'
import { client, may } from './link.js'
import { Messages } from './messages.js'
import sheet from './messages.sheet.css'
import { Produce, type Draft } from './produce.js'
import { useSome } from './some.js'
import { Poll, go, link, usePoll, type Place } from './state.js'
import { Confirm, Dialog, Field, Form } from './form.js'
import { Badge, Button, Empty, Failure, Panel, Tabs, Waiting, say } from './ui.js'

export { sheet }

type Meta = Awaited<ReturnType<typeof client.metadata>>['topics'][number]

export function Topic({ place }: { place: Place }) {
  const [, name, tab = 'messages'] = place.path
  const [meta] = useState(() => new Poll<Meta>(async signal => (await client.metadata([name], { signal, authorizedOperations: true, timeoutMs: 10_000 })).topics[0], 10_000))
  const m = usePoll(meta)
  const [dialog, setDialog] = useState<'delete' | 'partitions' | ''>('')
  const [draft, setDraft] = useState<Draft>()
  const bits = m.data?.authorizedOperations
  const gone = m.data?.errorCode === 3
  const close = (): void => setDialog('')
  const remove = async (): Promise<void> => {
    await admin.deleteTopics([name])
    say(`Topic ${name} is deleted`)
    void topics.refresh()
    void status.refresh()
    go(['topics'])
  }
  return (
    <>
      <div class="title">
        <a class="back" href={link(['topics'])} aria-label="All topics">
          Topics
        </a>
        <h1>{shown(name)}</h1>
        {m.data && !gone && <span class="quiet">{plural(m.data.partitions.length, 'partition')}</span>}
        <div class="actions">
          {m.data && !gone && may(bits, 'write') && (
            <Button icon="send" look="main" onClick={() => setDraft({})}>
              Produce
            </Button>
          )}
          {m.data && !gone && may(bits, 'alter') && (
            <Button icon="plus" aria-label="Add partitions" onClick={() => setDialog('partitions')}>
              Partitions
            </Button>
          )}
          {m.data && !gone && may(bits, 'delete') && (
            <Button icon="trash" look="plain" aria-label="Delete this topic" onClick={() => setDialog('delete')}>
              <span class="wide">Delete</span>
            </Button>
          )}
        </div>
      </div>
      {m.data === undefined ? (
        m.error ? <Failure error={m.error} again={meta.refresh} /> : <Waiting />
      ) : m.data.errorCode ? (
        <Empty title={gone ? 'There is no such topic' : 'You may not see this topic'}>
          <a href={link(['topics'])}>To all topics</a>
        </Empty>
      ) : (
        <>
          <Tabs
            label="Of this topic" current={tab}
            of={[
              { id: 'messages', name: 'Messages', href: link(['topics', name]) },
              { id: 'partitions', name: 'Partitions', href: link(['topics', name, 'partitions']) },
              { id: 'configuration', name: 'Configuration', href: link(['topics', name, 'configuration']) },
            ]}
          />
          {tab === 'messages' && <Messages topic={name} partitions={m.data.partitions.map(p => p.partition)} mayRead={may(bits, 'read')} onResend={may(bits, 'write') ? setDraft : undefined} />}
          {tab === 'partitions' && <Partitions topic={name} />}
          {tab === 'configuration' && <Configuration topic={name} mayAlter={may(bits, 'alterConfigs')} />}
          {draft && <Produce topic={name} partitions={m.data.partitions.map(p => p.partition)} draft={draft} onClose={() => setDraft(undefined)} />}
          {dialog === 'partitions' && <AddPartitions topic={name} now={m.data.partitions.length} onClose={close} onDone={meta.refresh} />}
        </>
      )}
      {dialog === 'delete' && (
        <Confirm title="Delete this topic" verb="Delete for good" name={name} onClose={close} onSubmit={remove}>
          All its records are gone then, on every node. There is no way back.
        </Confirm>
      )}
    </>
  )
}

const roleLevel = { leader: 'good', follower: '', 'non-voter': 'note', copying: 'warn', damaged: 'bad', offline: 'bad' }

function ReplicaBadge({ r }: { r: Replica }) {
  const copied = r.catch_up && r.catch_up.total ? `, ${Math.min(99, Math.floor((100 * r.catch_up.bytes) / r.catch_up.total))} %` : ''
  const late = r.role === 'follower' && r.lag > 0 ? ` −${short(r.lag)}` : ''
  return (
    <Badge level={roleLevel[r.role] ?? ''}>
      <span title={shown(r.error ?? `${r.role}, ${bytes(r.bytes)}, ends at ${r.applied}`)}>
        {shown(r.node)}
        {r.role === 'leader' ? ' leads' : r.role === 'follower' ? late : ` ${shown(r.role)}${copied}`}
        {r.leaving && ' leaves'}
      </span>
    </Badge>
  )
}

function Partitions({ topic }: { topic: string }) {
  const s = usePoll(status)
  const t = s.data?.topics?.find(t => t.name === topic)
  const troubledFirst = (p: Partition): number => (p.leader ? (p.replicas.some(troubled) ? 1 : 2) : 0)
  const list = useMemo(() => [...(t?.partitions ?? [])].sort((a, b) => troubledFirst(a) - troubledFirst(b) || a.partition - b.partition), [t])
  const [some, more] = useSome(list, 7)
  return (
    <Panel title="Partitions" of={s} again={status.refresh} actions={t && <span class="quiet">{plural(t.replication_factor, 'replica')} of each</span>}>
      {t ? (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col" class="number">Partition</th>
                <th scope="col">Replicas</th>
                <th scope="col" class="number wide">First</th>
                <th scope="col" class="number">End</th>
                <th scope="col" class="number">Records</th>
                <th scope="col" class="number wide">Size</th>
                <th scope="col" class="number wide">Term</th>
              </tr>
            </thead>
            <tbody>
              {some.map(p => (
                <tr key={p.partition}>
                  <td class="number">{p.partition}</td>
                  <td>
                    {!p.leader && <Badge level="bad">no leader</Badge>} {p.replicas.map(r => <ReplicaBadge r={r} />)}
                  </td>
                  <td class="number wide">{count(p.log_start)}</td>
                  <td class="number">{count(p.high_watermark)}</td>
                  <td class="number">{count(p.high_watermark - p.log_start)}</td>
                  <td class="number wide">{bytes(Math.max(0, ...p.replicas.map(r => r.bytes)))}</td>
                  <td class="number wide">{p.term}</td>
                </tr>
              ))}
              {more}
            </tbody>
          </table>
        </div>
      ) : (
        <Empty title="Nothing is known of its partitions yet" />
      )}
    </Panel>
  )
}

function AddPartitions(p: { topic: string; now: number; onClose: () => void; onDone: () => void }) {
  const [n, setN] = useState(String(p.now + 1))
  const submit = async (): Promise<void> => {
    await admin.createPartitions(p.topic, Number(n))
    say(`Topic ${p.topic} has ${n} partitions`)
    p.onDone()
    p.onClose()
  }
  return (
    <Dialog title="Add partitions" onClose={p.onClose}>
      <Form submit="Add" ready={Number(n) > p.now} onSubmit={submit} onCancel={p.onClose}>
        <p>There are {p.now} now, and there will never be fewer. Records with the same key go to other partitions from then on.</p>
        <Field label="Partitions in all">
          {id => <input id={id} type="number" min={p.now + 1} value={n} onInput={e => setN(e.currentTarget.value)} />}
        </Field>
      </Form>
    </Dialog>
  )
}

type Config = Awaited<ReturnType<typeof admin.describeConfigs>>[number]['configs'][number]
const sources: Record<number, string> = { 1: 'set here', 2: 'of the node', 4: 'of the cluster', 5: 'default' }

/** What a number of a configuration means, where its name says that. */
function meaning(name: string, value: string | null): string {
  const n = Number(value)
  if (value === null || value === '' || !Number.isFinite(n)) return ''
  if (name.endsWith('.ms')) return n < 0 || n > 1e15 ? 'no bound' : n >= 1000 ? duration(n) : ''
  if (name.endsWith('.bytes')) return n < 0 || n > 2 ** 60 ? 'no bound' : n >= 1024 ? bytes(n) : ''
  return ''
}

/** May be broken behind its points. */
const inParts = (name: string) => shown(name).split('.').flatMap((part, i) => (i ? ['.', <wbr />, part] : [part]))

function Configuration({ topic, mayAlter }: { topic: string; mayAlter: boolean }) {
  const [poll] = useState(() => new Poll<Config[]>(async signal => (await admin.describeConfigs([{ type: 'topic', name: topic }], { signal, documentation: true, timeoutMs: 10_000 }))[0].configs, 20_000))
  const c = usePoll(poll)
  const [editing, setEditing] = useState<Config>()
  const list = [...(c.data ?? [])].sort((a, b) => Number(b.source === 1) - Number(a.source === 1) || (a.name < b.name ? -1 : 1))
  return (
    <Panel title="Configuration" of={c} again={poll.refresh}>
      <div class="scroll">
        <table class="configs">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Value</th>
              <th scope="col" class="wide">Where from</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {list.map(one => (
              <tr key={one.name} class={one.source === 1 ? 'own' : ''}>
                <td>
                  <code title={shown(one.documentation ?? '')}>{inParts(one.name)}</code>
                </td>
                <td>
                  <code>{one.isSensitive ? '(secret)' : shown(one.value ?? '')}</code> <span class="quiet">{meaning(one.name, one.value)}</span>
                </td>
                <td class="wide quiet">{sources[one.source] ?? ''}</td>
                <td class="number">
                  {mayAlter && !one.readOnly && <Button look="plain" icon="edit" aria-label={`Change ${one.name}`} onClick={() => setEditing(one)} />}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {editing && <Change topic={topic} config={editing} onClose={() => setEditing(undefined)} onDone={poll.refresh} />}
    </Panel>
  )
}

function Change(p: { topic: string; config: Config; onClose: () => void; onDone: () => void }) {
  const { name, documentation, source } = p.config
  const [value, setValue] = useState(p.config.value ?? '')
  const [means, setMeans] = useState('')
  useEffect(() => setMeans(meaning(name, value)), [value])
  const set = async (to: string | null): Promise<void> => {
    await admin.alterConfigs({ type: 'topic', name: p.topic }, { [name]: to })
    say(to === null ? `${name} is the default again` : `${name} is ${to}`)
    p.onDone()
    p.onClose()
  }
  return (
    <Dialog title={shown(name)} onClose={p.onClose}>
      <Form submit="Set" onSubmit={() => set(value)} onCancel={p.onClose}>
        {documentation && <p>{shown(documentation)}</p>}
        <Field label="Value" hint={means}>
          {id => <input id={id} value={value} onInput={e => setValue(e.currentTarget.value)} spellcheck={false} />}
        </Field>
        {source === 1 && <Back set={() => set(null)} />}
      </Form>
    </Dialog>
  )
}

function Back({ set }: { set: () => Promise<void> }) {
  const [error, setError] = useState<Error>()
  return (
    <>
      {error && <Failure error={error} />}
      <Button icon="redo" onClick={() => void set().catch(setError)}>
        Back to the default
      </Button>
    </>
  )
}
