// What is wrong first, then the boat: nodes as hulls, and what they carry.
import { inWords, rates, status, sums, troubles, type Node, type Status } from './cluster.js'
import { bytes, plural, short, shown } from './format.js'
import { Plot } from './plot.js'
import { link, usePoll } from './state.js'
import { Badge, Empty, Panel, hull } from './ui.js'

/** One node: filled as far as it leads partitions. */
function Hull({ node, share, main, at }: { node: Node; share: number; main: boolean; at: number }) {
  const state = !node.alive ? 'gone' : node.state ? 'resting' : ''
  return (
    <li class={`hull ${state} ${main ? 'main' : ''}`}>
      <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
        <clipPath id={`hull-${at}`}>
          <path d={hull} />
        </clipPath>
        <path class="shell" d={hull} />
        <rect class="load" x="0" y="0" height="100" width={node.alive ? share * 100 : 0} clip-path={`url(#hull-${at})`} />
        <path class="edge" d={hull} vector-effect="non-scaling-stroke" />
      </svg>
      <div class="words">
        <strong>{shown(node.id)}</strong>
        {!node.alive && <Badge level="bad">does not answer</Badge>}
        {node.alive && node.state && <Badge level="warn">{shown(node.state)}</Badge>}
        {node.catalog_role === 'leader' && <Badge>leads the catalog</Badge>}
        {node.alive && (
          <span class="facts">
            leads {node.leaders} of {plural(node.replicas, 'replica')}
            {node.disk_total > 0 && <span class="disk"> · {bytes(node.disk_free)} free</span>}
          </span>
        )}
      </div>
    </li>
  )
}

function Boat({ status }: { status: Status }) {
  const { nodes } = status
  const led = nodes.reduce((n, node) => n + (node.alive ? node.leaders : 0), 0)
  const middle = Math.floor((nodes.length - 1) / 2)
  return (
    <ul class="boat" aria-label="Nodes">
      <li class="beams" aria-hidden="true" />
      {nodes.map((node, i) => (
        <Hull node={node} share={led ? node.leaders / led : 0} main={nodes.length < 2 || i === middle} at={i} key={node.id} />
      ))}
    </ul>
  )
}

function headline(s: Status): string {
  const alive = s.nodes.filter(n => n.alive).length
  if (!s.confirmed) return 'Nobody can confirm what is true now'
  if (alive < s.nodes.length) {
    const gone = s.nodes.filter(n => !n.alive).map(n => shown(n.id)).join(', ')
    return `${gone} ${s.nodes.length - alive === 1 ? 'does' : 'do'} not answer; ${alive === 1 ? 'one hull carries' : `${inWords(alive).toLowerCase()} hulls carry`} on`
  }
  return alive === 1 ? 'One hull, one boat' : `${inWords(alive)} hulls, one boat`
}

function Busy({ status }: { status: Status }) {
  const all = status.topics
    .map(t => ({ name: t.name, rate: rates.topics.get(t.name)?.records ?? 0, sum: sums.get(t.name) }))
    .sort((a, b) => b.rate - a.rate || (b.sum?.messages ?? 0) - (a.sum?.messages ?? 0))
    .slice(0, 6)
  if (!all.length) {
    return (
      <Empty title="No topics yet">
        <a href={link(['topics'], { create: '1' })}>Create the first one</a>, or let a Kafka client do it.
      </Empty>
    )
  }
  const top = Math.max(1, ...all.map(t => t.rate))
  return (
    <table class="busy">
      <thead>
        <tr>
          <th scope="col">Topic</th>
          <th scope="col" class="number">Records/s</th>
          <th scope="col" class="number">Records</th>
          <th scope="col" class="number wide">Size</th>
        </tr>
      </thead>
      <tbody>
        {all.map(t => (
          <tr key={t.name}>
            <td>
              <a href={link(['topics', t.name])}>{shown(t.name)}</a>
            </td>
            <td class="number">
              <meter min={0} max={top} value={t.rate} aria-hidden="true" />
              {short(t.rate)}
            </td>
            <td class="number">{short(t.sum?.messages ?? 0)}</td>
            <td class="number wide">{bytes(t.sum?.bytes ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

export function Overview() {
  const s = usePoll(status)
  const list = s.data ? troubles(s.data) : []
  const topicCount = s.data?.topics?.length ?? 0
  const partitions = (s.data?.topics ?? []).reduce((n, t) => n + t.partitions.length, 0)
  return (
    <>
      <h1>{s.data ? headline(s.data) : 'Trimaran'}</h1>
      {list.length > 0 && (
        <ul class="troubles" aria-label="What needs attention">
          {list.map(t => (
            <li class={t.level} key={t.text}>
              <strong>{shown(t.text)}</strong>
              {t.more && <span>{shown(t.more)}</span>}
            </li>
          ))}
        </ul>
      )}
      <Panel
        title="Nodes" class="water" of={s} again={status.refresh}
        actions={s.data && <span class="quiet">{plural(topicCount, 'topic')}, {plural(partitions, 'partition')}</span>}
      >
        {s.data && (s.data.nodes.length ? <Boat status={s.data} /> : <Empty title="The cluster is not formed yet" />)}
      </Panel>
      <div class="pair">
        <Panel title="Records per second" of={s} again={status.refresh} actions={<Now value={rates.records.last} format={short} />}>
          <Plot label="Records per second" series={rates.records} format={short} />
        </Panel>
        <Panel title="Bytes stored per second" of={s} again={status.refresh} actions={<Now value={rates.bytes.last} format={n => bytes(n) + '/s'} />}>
          <Plot label="Bytes stored per second" series={rates.bytes} format={bytes} bytes color="--accent2" />
        </Panel>
      </div>
      <Panel title="Busiest topics" of={s} again={status.refresh} actions={<a href={link(['topics'])}>All topics</a>}>
        {s.data && <Busy status={s.data} />}
      </Panel>
    </>
  )
}

const Now = ({ value, format }: { value: number; format: (n: number) => string }) => (
  <strong class="now">{Number.isNaN(value) ? '–' : format(value)}</strong>
)
