// Consumer groups: who is in them, how far behind they are, and where they go on.
import { useEffect, useMemo, useState } from 'preact/hooks'
import { admin } from './admin.js'
import { Series } from './cluster.js'
import { count, plural, short, shown } from './format.js'
import { client, may } from './link.js'
import { Plot } from './plot.js'
import { Reset } from './reset.js'
import { useSome } from './some.js'
import { Poll, go, link, usePoll, type Place } from './state.js'
import { Confirm } from './form.js'
import { Rows, sortBy, type Column } from './rows.js'
import { Badge, Button, Empty, Failure, Panel, Search, Waiting, say } from './ui.js'

type Listed = Awaited<ReturnType<typeof admin.listGroups>>[number]
const groups = new Poll<Listed[]>(signal => admin.listGroups({ signal, timeoutMs: 10_000 }), 5_000)

const stateLevel: Record<string, string> = { Stable: 'good', Empty: '', Dead: '', PreparingRebalance: 'warn', CompletingRebalance: 'warn' }

const columns: Column<Listed>[] = [
  { title: 'Name', class: 'name', sort: g => g.groupId, cell: g => <a href={link(['groups', g.groupId])}>{shown(g.groupId) || '(empty)'}</a> },
  { title: 'State', class: 'state', sort: g => g.state, cell: g => <Badge level={stateLevel[g.state] ?? ''}>{shown(g.state)}</Badge> },
  { title: 'Kind', class: 'kind wide', sort: g => g.protocolType, cell: g => shown(g.protocolType) || '–' },
]

export function Groups({ place }: { place: Place }) {
  return place.path[1] === undefined ? <List place={place} /> : <One id={place.path[1]} />
}

function List({ place }: { place: Place }) {
  const all = usePoll(groups)
  const q = place.query.get('q') ?? ''
  const [sorted, setSorted] = useState({ by: 'Name', down: false })
  const rows = useMemo(() => {
    const found = (all.data ?? []).filter(g => g.groupId.toLowerCase().includes(q.toLowerCase()))
    return sortBy(found, columns, sorted.by, sorted.down)
  }, [all.data, q, sorted])
  return (
    <>
      <div class="title">
        <h1>Groups</h1>
        {all.data && <span class="quiet">{plural(all.data.length, 'group')}</span>}
        <div class="actions">
          <Search value={q} label="Search groups" onInput={v => go(['groups'], { q: v }, true)} />
        </div>
      </div>
      {all.error && <Failure error={all.error} again={groups.refresh} />}
      {all.data === undefined ? (
        !all.error && <Waiting />
      ) : rows.length ? (
        <Rows label="Groups" class="tall groups" rows={rows} columns={columns} keyOf={g => g.groupId} sorted={sorted} onSort={(by, down) => setSorted({ by, down })} onOpen={g => go(['groups', g.groupId])} />
      ) : (
        <Empty title={q ? 'No group has that in its name' : 'No groups yet'}>{!q && 'A group is here once a consumer has joined it or committed an offset.'}</Empty>
      )}
    </>
  )
}

export interface Position {
  topic: string
  partition: number
  /** -1: nothing is committed */
  committed: bigint
  start: bigint
  end: bigint
  lag: bigint
  member?: string
}
type Described = Awaited<ReturnType<typeof admin.describeGroups>>[number]
interface Known {
  group: Described
  positions: Position[]
  lag: number
  /** topics of which nothing could be learned */
  missing: string[]
}

async function learn(id: string, signal: AbortSignal): Promise<Known> {
  const o = { signal, timeoutMs: 10_000 }
  const [[group], offsets] = await Promise.all([admin.describeGroups([id], o), admin.groupOffsets(id, o)])
  const wanted = new Map<string, Map<number, { committed: bigint; member?: string }>>()
  const of = (topic: string): Map<number, { committed: bigint; member?: string }> => {
    let m = wanted.get(topic)
    if (!m) wanted.set(topic, (m = new Map()))
    return m
  }
  for (const c of offsets) of(c.topic).set(c.partition, { committed: c.offset })
  for (const m of group.members) {
    for (const t of m.partitions) for (const p of t.partitions) of(t.topic).set(p, { committed: of(t.topic).get(p)?.committed ?? -1n, member: m.clientId })
  }
  const missing: string[] = []
  const positions: Position[] = []
  await Promise.all(
    [...wanted].map(async ([topic, parts]) => {
      try {
        const numbers = [...parts.keys()]
        const [starts, ends] = await Promise.all([client.listOffsets(topic, 'earliest', numbers, o), client.listOffsets(topic, 'latest', numbers, o)])
        for (const [partition, p] of parts) {
          const start = starts.get(partition)!.offset
          const end = ends.get(partition)!.offset
          const from = p.committed < 0n ? end : p.committed < start ? start : p.committed
          positions.push({ topic, partition, ...p, start, end, lag: p.committed < 0n || from > end ? 0n : end - from })
        }
      } catch (e) {
        signal.throwIfAborted()
        missing.push(topic)
      }
    }),
  )
  positions.sort((a, b) => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition))
  return { group, positions, missing, lag: positions.reduce((n, p) => n + Number(p.lag), 0) }
}

function One({ id }: { id: string }) {
  const [series] = useState(() => new Series())
  const [poll] = useState(() => new Poll<Known>(signal => learn(id, signal), 2_000, (k, at) => series.add(at, k.lag)))
  const k = usePoll(poll)
  const [dialog, setDialog] = useState<'reset' | 'delete' | ''>('')
  useEffect(() => setDialog(''), [id])
  const g = k.data?.group
  const empty = g?.state === 'Empty' || g?.state === 'Dead'
  const remove = async (): Promise<void> => {
    await admin.deleteGroups([id])
    say(`Group ${id} is deleted`)
    void groups.refresh()
    go(['groups'])
  }
  return (
    <>
      <div class="title">
        <a class="back" href={link(['groups'])}>
          Groups
        </a>
        <h1>{shown(id) || '(empty)'}</h1>
        {g && <Badge level={stateLevel[g.state] ?? ''}>{shown(g.state)}</Badge>}
        <div class="actions">
          {k.data && k.data.positions.length > 0 && may(g!.authorizedOperations, 'read') && (
            <Button icon="redo" disabled={!empty} title={empty ? '' : 'Only while nobody is in the group'} onClick={() => setDialog('reset')}>
              Reset offsets
            </Button>
          )}
          {g && g.state !== 'Dead' && may(g.authorizedOperations, 'delete') && (
            <Button icon="trash" look="plain" disabled={!empty} title={empty ? '' : 'Only while nobody is in the group'} onClick={() => setDialog('delete')}>
              Delete
            </Button>
          )}
        </div>
      </div>
      <Panel title="Lag" of={k} again={poll.refresh} actions={k.data && <strong class="now">{short(k.data.lag)}</strong>}>
        <Plot label="Records behind the end" series={series} format={short} color="--accent2" />
      </Panel>
      <Panel title="Offsets" of={k} again={poll.refresh}>
        {k.data && <Offsets known={k.data} />}
      </Panel>
      <Panel title="Members" of={k} again={poll.refresh} actions={g && <span class="quiet">{plural(g.members.length, 'member')}</span>}>
        {g && <Members group={g} />}
      </Panel>
      {dialog === 'reset' && k.data && <Reset group={id} positions={k.data.positions} onClose={() => setDialog('')} onDone={poll.refresh} />}
      {dialog === 'delete' && (
        <Confirm title="Delete this group" verb="Delete" name={id} onClose={() => setDialog('')} onSubmit={remove}>
          What it has committed is forgotten. Records stay.
        </Confirm>
      )}
    </>
  )
}

function Offsets({ known }: { known: Known }) {
  const [some, more] = useSome(known.positions, 6)
  if (!known.positions.length && !known.missing.length) return <Empty title="Nothing is committed">And no member has a partition.</Empty>
  const most = known.positions.reduce((n, p) => Math.max(n, Number(p.lag)), 1)
  return (
    <div class="scroll">
      {known.missing.length > 0 && <p class="wrong">Nothing can be learned of {known.missing.map(t => shown(t)).join(', ')}: deleted, or not for you.</p>}
      <table>
        <thead>
          <tr>
            <th scope="col">Topic</th>
            <th scope="col" class="number">Partition</th>
            <th scope="col" class="number wide">Committed</th>
            <th scope="col" class="number wide">End</th>
            <th scope="col" class="number">Behind</th>
            <th scope="col" class="wide">Member</th>
          </tr>
        </thead>
        <tbody>
          {some.map(p => (
            <tr key={`${p.topic}/${p.partition}`}>
              <td>
                <a href={link(['topics', p.topic])}>{shown(p.topic)}</a>
              </td>
              <td class="number">{p.partition}</td>
              <td class="number wide">{p.committed < 0n ? 'nothing' : count(p.committed)}</td>
              <td class="number wide">{count(p.end)}</td>
              <td class="number">
                <meter min={0} max={most} value={Number(p.lag)} aria-hidden="true" />
                {count(p.lag)}
              </td>
              <td class="wide">{shown(p.member ?? '–')}</td>
            </tr>
          ))}
          {more}
        </tbody>
      </table>
    </div>
  )
}

function Members({ group }: { group: Described }) {
  const [some, more] = useSome(group.members, 4)
  if (!group.members.length) return <Empty title="Nobody is in the group">Offsets can be reset now.</Empty>
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Client</th>
            <th scope="col">From</th>
            <th scope="col">Has</th>
            <th scope="col" class="wide">Id</th>
          </tr>
        </thead>
        <tbody>
          {some.map(m => (
            <tr key={m.memberId}>
              <td>{shown(m.clientId)}</td>
              <td>
                <code>{shown(m.clientHost.replace(/^\//, ''))}</code>
              </td>
              <td>{m.partitions.map(t => `${shown(t.topic)} ${t.partitions.join(', ')}`).join('; ') || '–'}</td>
              <td class="wide quiet">
                <code class="cut">{shown(m.memberId)}</code>
              </td>
            </tr>
          ))}
          {more}
        </tbody>
      </table>
    </div>
  )
}
