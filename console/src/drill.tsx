// The fault drill of `trimaran dev`: nodes are killed, paused and restarted, and what clients see of
// it is drawn as it happens.
import { useEffect, useRef, useState } from 'preact/hooks'
import { admin } from './admin.js'
import { beat, spanMs, topic, type Beat } from './beat.js'
import { status, type Status } from './cluster.js'
import sheet from './drill.sheet.css'
import { count, shown } from './format.js'
import { another } from './link.js'
import { Poll, link, use, usePoll } from './state.js'
import { Badge, Button, Failure, Panel, hull, say } from './ui.js'

export { sheet }

interface Drilled {
  id: string
  address: string
  state: 'starting' | 'running' | 'paused' | 'stopping' | 'down'
  why?: string
  pid?: number
  since_ms: number
}
type Op = 'kill' | 'pause' | 'resume' | 'restart'

async function ask(init?: RequestInit): Promise<Drilled[]> {
  const answer = await fetch('/drill/nodes', init)
  if (!answer.ok) throw new Error((await answer.text()).trim())
  return answer.json() as Promise<Drilled[]>
}
const nodes = new Poll<Drilled[]>(signal => ask({ signal }), 500)

const done: Record<Op, string> = { kill: 'killed', pause: 'paused', resume: 'goes on', restart: 'is started' }
async function act(op: Op, node: string): Promise<void> {
  try {
    await ask({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ op, node }) })
    beat.mark(`${node} ${done[op]}`)
  } catch (e) {
    say((e as Error).message, true)
  }
  void nodes.refresh()
  void status.refresh()
}

const look = { starting: 'warn', running: 'good', paused: 'warn', stopping: 'warn', down: 'bad' }

function Hull({ node, s, main }: { node: Drilled; s?: Status; main: boolean }) {
  const known = s?.nodes.find(n => n.id === node.id)
  const up = node.state === 'running'
  const led = (s?.nodes ?? []).reduce((n, one) => n + one.leaders, 0)
  const button = (op: Op, text: string, danger?: boolean) => (
    <Button look={danger ? 'danger' : undefined} aria-label={`${text} ${shown(node.id)}`} onClick={() => void act(op, node.id)}>
      {text}
    </Button>
  )
  return (
    <li class={`hull ${up ? '' : node.state === 'down' ? 'gone' : 'resting'} ${main ? 'main' : ''}`}>
      <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
        <clipPath id={`drill-${node.id}`}>
          <path d={hull} />
        </clipPath>
        <path class="shell" d={hull} />
        <rect class="load" x="0" y="0" height="100" width={up && known && led ? (known.leaders / led) * 100 : 0} clip-path={`url(#drill-${node.id})`} />
        <path class="edge" d={hull} vector-effect="non-scaling-stroke" />
      </svg>
      <div class="words">
        <strong>{shown(node.id)}</strong>
        <Badge level={look[node.state]}>{node.state === 'down' ? shown(node.why ?? 'down') : node.state}</Badge>
        <span class="facts">{up && known ? `leads ${known.leaders} of ${known.replicas} replicas` : node.pid ? `process ${node.pid}` : 'no process'}</span>
        <span class="buttons">
          {node.state === 'down' ? (
            button('restart', 'Start')
          ) : (
            <>
              {button('kill', 'Kill', true)}
              {node.state === 'paused' ? button('resume', 'Go on') : up && button('pause', 'Pause')}
              {up && button('restart', 'Restart')}
            </>
          )}
        </span>
      </div>
    </li>
  )
}

const seconds = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`)
const laneHeight = 66

function draw(canvas: HTMLCanvasElement, b: Beat, s?: Status): void {
  const { clientWidth: width, clientHeight: height } = canvas
  const ratio = devicePixelRatio || 1
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
  }
  const style = getComputedStyle(canvas)
  const color = (name: string): string => style.getPropertyValue(name)
  const c = canvas.getContext('2d')!
  c.setTransform(ratio, 0, 0, ratio, 0, 0)
  c.clearRect(0, 0, width, height)
  c.font = `12px ${style.fontFamily}`
  const now = Date.now()
  const span = Math.min(spanMs, 12_000 + width * 30)
  const x = (at: number): number => width - 4 - ((now - at) / span) * (width - 4)
  const top = 20
  // 1 ms, 10 ms, 100 ms, 1 s and 10 s are as far from each other.
  const tall = (ms: number): number => Math.max(2, Math.min(1, Math.log10(Math.max(1, ms)) / 4) * (laneHeight - 22))
  b.lanes.forEach((lane, i) => {
    const base = top + (i + 1) * laneHeight - 4
    c.fillStyle = color('--line')
    c.fillRect(0, base, width, 1)
    for (const one of lane.sent) {
      const at = x(one.at)
      if (at < -2) continue
      const took = one.tookMs ?? now - one.at
      const waits = one.tookMs === undefined
      c.fillStyle = color(one.failed || (waits && took > 150) ? '--bad' : took > 150 ? '--beam' : '--accent')
      c.globalAlpha = waits ? 0.55 : 1
      c.fillRect(at - 1, base - tall(took), 1.6, tall(took))
    }
    c.globalAlpha = 1
    const leader = s?.topics.find(t => t.name === topic)?.partitions.find(p => p.partition === lane.partition)?.leader
    const words = `partition ${lane.partition}${leader ? `, led by ${leader}` : ''}`
    c.fillStyle = color('--panel')
    c.globalAlpha = 0.8
    c.fillRect(0, base - laneHeight + 6, c.measureText(words).width + 6, 17)
    c.globalAlpha = 1
    c.fillStyle = color('--quiet')
    c.fillText(words, 2, base - laneHeight + 19)
  })
  let free = Infinity
  for (const e of b.events) {
    const at = x(e.at)
    if (at < 0) break
    c.fillStyle = color('--text')
    c.fillRect(Math.round(at), 4, 1, height - 8)
    const room = c.measureText(e.text).width
    const left = Math.min(at + 4, width - room - 2)
    if (left + room < free) {
      c.fillText(e.text, left, 13)
      free = left - 6
    }
  }
}

function Lanes({ s }: { s?: Status }) {
  const ref = useRef<HTMLCanvasElement>(null)
  const now = useRef(s)
  now.current = s
  useEffect(() => {
    let frame = 0
    const again = (): void => {
      if (ref.current) draw(ref.current, beat, now.current)
      frame = requestAnimationFrame(again)
    }
    again()
    return () => cancelAnimationFrame(frame)
  }, [])
  return (
    <canvas
      ref={e => {
        ref.current = e
        if (e) e.style.height = `${24 + Math.max(1, beat.lanes.length) * laneHeight}px`
      }}
      class="lanes" role="img" aria-label={`Records of the last minute, by partition. The longest wait was ${seconds(beat.worstMs)}.`}
    />
  )
}

let client: ReturnType<typeof another> | undefined
async function begin(replicas: number): Promise<void> {
  try {
    await admin.createTopics([{ topic, partitions: 3, replicationFactor: Math.min(3, replicas), configs: { 'retention.ms': '3600000' } }])
  } catch (e) {
    if ((e as { code?: number }).code !== 36) throw e // it is there
  }
  // A node that is paused takes requests and answers none: somebody else is asked soon.
  client ??= another({ requestTimeoutMs: 1_500, connectTimeoutMs: 1_000 })
  await beat.start(client, await client.partitions(topic))
}

function Seen() {
  // What counts is drawn by itself; words follow a few times a second.
  const [, turn] = useState(0)
  const [error, setError] = useState<Error>()
  const [busy, setBusy] = useState(false)
  const s = use(status).data
  useEffect(() => {
    const timer = setInterval(() => turn(n => n + 1), 250)
    return () => clearInterval(timer)
  }, [])
  const start = async (): Promise<void> => {
    setBusy(true)
    setError(undefined)
    await begin(s?.nodes.length ?? 1).catch(e => setError(e as Error))
    setBusy(false)
  }
  const begun = beat.lanes.length > 0
  const waiting = beat.lanes.reduce((n, l) => n + l.waiting, 0)
  const wrong = beat.lost + beat.doubled
  // Who waits still has waited for so long, too.
  const oldest = beat.lanes.map(l => l.sent.find(one => one.tookMs === undefined && !one.failed)?.at ?? Infinity)
  const worst = Math.max(beat.worstMs, Date.now() - Math.min(Infinity, ...oldest))
  return (
    <Panel
      title="What a client sees"
      actions={beat.running ? <Button icon="pause" onClick={() => beat.stop()}>Stop writing</Button> : <Button icon="play" look="main" busy={busy} onClick={() => void start()}>Start writing</Button>}
    >
      {error && <Failure error={error} />}
      {begun ? (
        <>
          <dl class="figures">
            <div>
              <dt>Acknowledged</dt>
              <dd>{count(beat.acknowledged)}</dd>
            </div>
            <div>
              <dt>Waiting now</dt>
              <dd class={waiting > 30 ? 'wrong' : ''}>{count(waiting)}</dd>
            </div>
            <div>
              <dt>Longest wait</dt>
              <dd>{seconds(worst)}</dd>
            </div>
            <div>
              <dt>Read back</dt>
              <dd>{count(beat.readBack)}</dd>
            </div>
            <div>
              <dt>Lost or doubled</dt>
              <dd class={wrong ? 'wrong' : 'right'}>{count(wrong)}</dd>
            </div>
          </dl>
          <Lanes s={s} />
          <p class="quiet">Each line is a record, from when it was sent, and as tall as its wait was long: 10 ms, 100 ms, 1 s and 10 s are a quarter each. Those that wait still grow.</p>
          {beat.error && beat.failed > 0 && <p class="wrong">{count(beat.failed)} failed, the last with {shown(beat.error.message)}: nobody knows whether they are there.</p>}
        </>
      ) : (
        <p class="quiet">
          Writes 20 records a second to each of three partitions of the topic <code>{topic}</code>, which it creates if it is not there, and reads them back. Then kill the node that leads one.
        </p>
      )}
      {beat.events.length > 0 && (
        <ol class="events" aria-live="polite">
          {beat.events.map(e => (
            <li key={e.at}>
              <time>{new Date(e.at).toLocaleTimeString()}</time> <strong>{shown(e.text)}</strong> {begun && <span class="quiet">longest wait since: {seconds(e.worstMs)}</span>}
            </li>
          ))}
        </ol>
      )}
    </Panel>
  )
}

export function Drill() {
  const n = usePoll(nodes)
  const s = usePoll(status)
  const middle = Math.floor(((n.data?.length ?? 1) - 1) / 2)
  const up = n.data?.filter(one => one.state === 'running').length ?? 0
  const all = n.data?.length ?? 0
  return (
    <>
      <div class="title">
        <h1>Fault drill</h1>
        {n.data && <span class="quiet">{up === all ? 'all hulls afloat' : up * 2 > all ? `${up} of ${all}: a majority carries on` : `${up} of ${all}: no majority, so nothing is acknowledged`}</span>}
      </div>
      <Panel title="Nodes of this cluster" class="water" of={n} again={nodes.refresh} actions={<a href={link([])}>Overview</a>}>
        {n.data && (
          <ul class="boat drill" aria-label="Nodes">
            <li class="beams" aria-hidden="true" />
            {n.data.map((node, i) => (
              <Hull node={node} s={s.data} main={i === middle} key={node.id} />
            ))}
          </ul>
        )}
      </Panel>
      <Seen />
    </>
  )
}
