// The nodes: what they are and carry, and what an operator asks of them.
import { useState } from 'preact/hooks'
import { clusterOps, status, type Node, type Partition, type Replica, type Status } from './cluster.js'
import { bytes, duration, plural, short, shown } from './format.js'
import { may } from './link.js'
import { administer, type Op } from './own.js'
import { useSome } from './some.js'
import { link, use, usePoll, type Place } from './state.js'
import { Confirm, Dialog, Form } from './form.js'
import { Badge, Button, Empty, Panel, say } from './ui.js'

interface Moving {
  replicas: number
  left: number
  bytes: number
  total: number
  rate: number
}

/** What is being copied to a node. */
function copies(s: Status, node: string): Moving {
  const m: Moving = { replicas: 0, left: 0, bytes: 0, total: 0, rate: 0 }
  for (const t of s.topics) {
    for (const p of t.partitions) {
      for (const r of p.replicas) {
        if (r.node !== node) continue
        if (r.leaving) m.left++
        if (r.role !== 'copying') continue
        m.replicas++
        m.bytes += r.catch_up?.bytes ?? 0
        m.total += r.catch_up?.total ?? 0
        m.rate += r.catch_up?.bytes_per_second ?? 0
      }
    }
  }
  return m
}

function Disk({ node }: { node: Node }) {
  if (!node.disk_total) return <span class="quiet">–</span>
  const used = 1 - node.disk_free / node.disk_total
  return (
    <span class="disk">
      <meter min={0} max={1} high={0.85} optimum={0} value={used} aria-label="Used" /> {bytes(node.disk_free)} free of {bytes(node.disk_total)}
    </span>
  )
}

function Card({ node, s, mayAlter, ask }: { node: Node; s: Status; mayAlter: boolean; ask: (op: Op) => void }) {
  const m = copies(s, node.id)
  return (
    <Panel
      title={
        <>
          {shown(node.id)} {!node.alive && <Badge level="bad">does not answer</Badge>}
          {node.alive && !node.state && <Badge level="good">serves</Badge>}
          {node.state && <Badge level="warn">{shown(node.state)}</Badge>}
        </>
      }
      actions={
        mayAlter && (
          <>
            {node.state ? <Button onClick={() => ask('activate')}>Resume</Button> : <Button onClick={() => ask('drain')}>Drain</Button>}
            {node.state !== 'leaving' && (
              <Button look="plain" onClick={() => ask('decommission')}>
                Decommission
              </Button>
            )}
          </>
        )
      }
    >
      <dl class="facts">
        <dt>Leads</dt>
        <dd>
          {plural(node.leaders, 'partition')} of {plural(node.replicas, 'replica')}
        </dd>
        <dt>Clients</dt>
        <dd>
          <code>{shown(node.client_address || '–')}</code>
        </dd>
        <dt>Disk</dt>
        <dd>
          <Disk node={node} />
        </dd>
        <dt>Catalog</dt>
        <dd>{shown(node.catalog_role || 'not known')}</dd>
        <dt>Zone</dt>
        <dd>{shown(node.zone || 'none')}</dd>
        <dt>Version</dt>
        <dd>
          <code>{shown(node.version || '–')}</code>
        </dd>
        {m.replicas > 0 && (
          <>
            <dt>Copies</dt>
            <dd>
              <progress max={m.total || 1} value={m.bytes} aria-label="Copied" /> {plural(m.replicas, 'replica')}, {bytes(m.bytes)} of {bytes(m.total)}, {bytes(m.rate)}/s
            </dd>
          </>
        )}
        {m.left > 0 && (
          <>
            <dt>Leave it</dt>
            <dd>{plural(m.left, 'replica')}</dd>
          </>
        )}
      </dl>
    </Panel>
  )
}

interface Move {
  topic: string
  /** the name is of shards of consumer groups */
  shard?: boolean
  p: Partition
  r: Replica
}

/** What is on its way to a node, or away from one. Who does not vote yet is being brought up by Raft. */
function movesOf(s: Status): Move[] {
  const all = [...s.topics, { name: 'consumer groups, shard', shard: true, partitions: s.group_shards ?? [] }]
  return all.flatMap(t =>
    t.partitions.flatMap(p => p.replicas.filter(r => r.leaving || r.role === 'copying' || r.role === 'non-voter').map(r => ({ topic: t.name, shard: 'shard' in t, p, r }))),
  )
}

function Progress({ p, r }: Move) {
  const c = r.catch_up
  if (r.leaving) return <span class="quiet">goes when the others do without it</span>
  if (r.role !== 'copying') {
    const all = Math.max(0, p.high_watermark - p.log_start)
    const there = Math.min(all, Math.max(0, r.applied - p.log_start))
    if (!all) return <span class="quiet">has no vote yet</span>
    return (
      <>
        <progress max={all} value={there} aria-label="Read" /> {short(there)} of {plural(all, 'record')}
      </>
    )
  }
  if (!c?.total) return <span class="quiet">begins</span>
  const left = c.bytes_per_second > 0 ? (Math.max(0, c.total - c.bytes) / c.bytes_per_second) * 1000 : undefined
  return (
    <>
      <progress max={c.total} value={c.bytes} aria-label="Copied" /> {bytes(c.bytes)} of {bytes(c.total)}
      <span class="quiet wide">
        , {bytes(c.bytes_per_second)}/s{left !== undefined && `, ${left < 1000 ? 'a moment' : duration(Math.round(left / 1000) * 1000)} left`}
      </span>
    </>
  )
}

function Moves({ s }: { s: Status }) {
  const all = movesOf(s)
  const [some, more] = useSome(all, 3)
  return (
    <Panel title="Moves" actions={<span class="quiet">{all.length ? plural(all.length, 'replica') : 'none'}</span>}>
      {all.length ? (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Replica</th>
                <th scope="col">Node</th>
                <th scope="col">Progress</th>
              </tr>
            </thead>
            <tbody>
              {some.map(m => (
                <tr key={`${m.topic}/${m.p.partition}/${m.r.node}`}>
                  <td>
                    {m.shard ? m.topic : <a href={link(['topics', m.topic, 'partitions'])}>{shown(m.topic)}</a>} {m.p.partition}
                  </td>
                  <td>
                    {shown(m.r.node)} {m.r.leaving && <Badge level="note">leaves</Badge>}
                  </td>
                  <td>
                    <Progress {...m} />
                  </td>
                </tr>
              ))}
              {more}
            </tbody>
          </table>
        </div>
      ) : (
        <p class="quiet">Every replica is where it should be.</p>
      )}
    </Panel>
  )
}

const words: Record<Op, { title: string; verb: string; text: string; done: string }> = {
  drain: { title: 'Drain this node', verb: 'Drain', text: 'It leads nothing from then on; its replicas stay. Do that before a restart; "Resume" ends it.', done: 'is drained' },
  activate: { title: 'Resume this node', verb: 'Resume', text: 'It leads partitions and takes replicas again.', done: 'is active again' },
  decommission: { title: 'Take this node out of the cluster', verb: 'Decommission', text: 'All its replicas go to others, and then it leaves. "Resume" ends that as long as it is there.', done: 'is on its way out' },
}

export function Nodes(_: { place: Place }) {
  const s = usePoll(status)
  const bits = use(clusterOps)
  const [asked, setAsked] = useState<{ op: Op; node: string }>()
  const close = (): void => setAsked(undefined)
  const submit = async (): Promise<void> => {
    await administer(asked!.op, asked!.node)
    say(`Node ${asked!.node} ${words[asked!.op].done}`)
    void status.refresh()
    close()
  }
  const w = asked && words[asked.op]
  return (
    <>
      <div class="title">
        <h1>Nodes</h1>
        {s.data && <span class="quiet">{s.data.nodes.filter(n => n.alive).length} of {plural(s.data.nodes.length, 'node')} there</span>}
      </div>
      {s.data ? (
        s.data.nodes.length ? (
          <>
            <div class="cards">
              {s.data.nodes.map(n => (
                <Card key={n.id} node={n} s={s.data!} mayAlter={may(bits, 'alter')} ask={op => setAsked({ op, node: n.id })} />
              ))}
            </div>
            <Moves s={s.data} />
          </>
        ) : (
          <Empty title="The cluster is not formed yet" />
        )
      ) : (
        <Panel title="Nodes" of={s} again={status.refresh}>
          {null}
        </Panel>
      )}
      {asked && w && asked.op === 'decommission' && (
        <Confirm title={w.title} verb={w.verb} name={asked.node} onClose={close} onSubmit={submit}>
          {w.text}
        </Confirm>
      )}
      {asked && w && asked.op !== 'decommission' && (
        <Dialog title={`${w.title}: ${shown(asked.node)}`} onClose={close}>
          <Form submit={w.verb} onSubmit={submit} onCancel={close}>
            <p>{w.text}</p>
          </Form>
        </Dialog>
      )}
    </>
  )
}
