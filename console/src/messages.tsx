// The messages of a topic: as they come, the newest, or from a place on; searched, looked at,
// exported and sent again.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { count, localTime, preview, short, shown, time } from './format.js'
import { client } from './link.js'
import { Detail } from './message.js'
import { exportAs } from './export.js'
import { fromMessage, type Draft } from './produce.js'
import { Ring, Scan, keep, matcher, newestFirst, oldestFirst, type Level, type Match, type Message, type Start } from './read.js'
import { Partition } from './some.js'
import { go, place, use } from './state.js'
import { Rows, type Column } from './rows.js'
import { Badge, Button, Empty, Failure, Search, Waiting } from './ui.js'

const page = 100

const columns: Column<Message>[] = [
  { title: 'Time', class: 'when', cell: m => <time><span class="date">{time(m.timestamp).slice(5, 11)}</span>{time(m.timestamp).slice(11)}</time> },
  { title: 'At', class: 'at', cell: m => <button type="button" class="open text" title={`partition ${m.partition}, offset ${m.offset}`}>{m.partition}<i>/</i>{String(m.offset)}</button> },
  { title: 'Key', class: 'key', cell: m => (m.key ? preview(m.key, 80) : <span class="none">no key</span>) },
  { title: 'Value', class: 'value', cell: m => (m.value ? m.value.length ? preview(m.value) : <span class="none">empty</span> : <Badge>tombstone</Badge>) },
]

type Mode = 'live' | 'newest' | 'earliest' | 'offset' | 'time'

interface View {
  list: Message[]
  error?: Error
  busy?: boolean
  /** there is nothing more behind the list */
  done?: boolean
  scanned: number
  rate?: number
  /** how many offsets belong to transactions that are not decided yet, or are behind one */
  undecided?: bigint
}

function startOf(mode: Mode, at: string): Start {
  if (mode === 'offset') return { offset: /^\d{1,18}$/.test(at) ? BigInt(at) : 0n }
  if (mode === 'time') return { timestamp: Date.parse(at) || Date.now() - 3_600_000 }
  return mode === 'earliest' ? 'earliest' : 'newest'
}

/** Reads page by page. */
function usePages(topic: string, partitions: number[], mode: Mode, at: string, isolation: Level, match: Match | undefined): [View, () => void, () => void] {
  const [view, setView] = useState<View>({ list: [], scanned: 0 })
  const scan = useRef<Scan | undefined>(undefined)
  const stop = useRef<AbortController | undefined>(undefined)
  const more = (): void => {
    const mine = scan.current!
    stop.current?.abort()
    const control = (stop.current = new AbortController())
    const order = mine.from === 'newest' ? newestFirst : oldestFirst
    setView(v => ({ ...v, busy: true, error: undefined }))
    const settle = (error?: Error): void => {
      if (mine.done) mine.close()
      if (scan.current === mine) setView(v => ({ ...v, busy: false, error, done: mine.done, scanned: mine.scanned, undecided: mine.undecided }))
    }
    mine
      .more(page, match, control.signal, some => {
        if (scan.current === mine) setView(v => ({ ...v, scanned: mine.scanned, list: some.length ? [...v.list, ...some].sort(order).slice(0, 20_000) : v.list }))
      })
      .then(() => settle(), e => settle(control.signal.aborted ? undefined : (e as Error)))
  }
  useEffect(() => {
    if (mode === 'live') return
    scan.current = new Scan(topic, partitions, startOf(mode, at), isolation)
    setView({ list: [], scanned: 0, busy: true })
    // Not with every letter that is typed.
    const timer = setTimeout(more, match ? 250 : 0)
    return () => {
      clearTimeout(timer)
      stop.current?.abort()
      scan.current?.close()
      scan.current = undefined
    }
  }, [topic, partitions.join(), mode, at, isolation, match])
  return [view, more, () => stop.current?.abort()]
}

/** Follows the end. What comes is shown at once, and then a few times a second, however much it is. */
function useTail(topic: string, partitions: number[], on: boolean, isolation: Level, match: Match | undefined): [View, (hold: boolean) => void] {
  const [view, setView] = useState<View>({ list: [], scanned: 0 })
  const held = useRef(false)
  const turn = useRef<() => void>(() => {})
  useEffect(() => {
    if (!on) return
    const ring = new Ring()
    const control = new AbortController()
    let scanned = 0
    let before = { at: Date.now(), scanned: 0 }
    let rate = 0
    let shown = 0
    let timer: ReturnType<typeof setTimeout> | undefined
    setView({ list: [], scanned: 0 })
    const show = (): void => {
      timer = undefined
      shown = performance.now()
      setView(v => ({ ...v, scanned, rate, list: held.current ? v.list : ring.all }))
    }
    const soon = (): void => void (timer ??= setTimeout(show, Math.max(0, shown + 200 - performance.now())))
    const ticks = setInterval(() => {
      const now = Date.now()
      rate = ((scanned - before.scanned) * 1000) / (now - before.at)
      before = { at: now, scanned }
      setView(v => ({ ...v, scanned, rate }))
    }, 1_000)
    turn.current = soon
    void (async () => {
      const all = client.tail({ topics: topic, partitions, from: 'latest', reset: 'earliest', maxWaitMs: 250, maxBytes: 1 << 20, isolation, signal: control.signal })
      let worked = performance.now()
      try {
        for await (const r of all) {
          scanned++
          if (!match || match(r)) {
            ring.add(keep(r))
            soon()
          }
          // The page is drawn and answers in between.
          if (scanned % 256 === 0 && performance.now() - worked > 12) {
            await new Promise(done => setTimeout(done))
            worked = performance.now()
          }
        }
      } catch (error) {
        if (!control.signal.aborted) setView(v => ({ ...v, error: error as Error }))
      }
    })()
    return () => {
      turn.current = () => {}
      clearInterval(ticks)
      clearTimeout(timer)
      control.abort()
    }
  }, [topic, partitions.join(), on, isolation, match])
  return [view, hold => {
    held.current = hold
    turn.current()
  }]
}

const modes: { id: Mode; name: string }[] = [
  { id: 'newest', name: 'Newest' },
  { id: 'live', name: 'Live' },
  { id: 'earliest', name: 'Oldest' },
  { id: 'offset', name: 'Offset' },
  { id: 'time', name: 'Time' },
]

function useMatch(q: string): [Match | undefined, string | undefined] {
  return useMemo(() => {
    try {
      return [matcher(q), undefined]
    } catch (e) {
      return [undefined, (e as Error).message]
    }
  }, [q])
}

interface Props {
  topic: string
  partitions: number[]
  mayRead: boolean
  onResend?: (d: Draft) => void
}

export function Messages(p: Props) {
  const at = use(place).query
  const mode = (modes.find(m => m.id === at.get('from'))?.id ?? 'newest') as Mode
  const where = at.get('at') ?? ''
  const q = at.get('q') ?? ''
  const only = at.get('partition')
  const isolation: Level = at.get('isolation') === 'read_committed' ? 'read_committed' : 'read_uncommitted'
  const chosen = useMemo(() => (only !== null && p.partitions.includes(Number(only)) ? [Number(only)] : p.partitions), [only, p.partitions.join()])
  const [match, wrong] = useMatch(q)
  const [pages, more, stop] = usePages(p.topic, chosen, p.mayRead ? mode : 'live', where, isolation, match)
  const [tail, hold] = useTail(p.topic, chosen, mode === 'live' && p.mayRead, isolation, match)
  const [open, setOpen] = useState<Message>()
  const [paused, setPaused] = useState(false)
  const view = mode === 'live' ? tail : pages
  const set = (query: Record<string, string | undefined>): void => {
    go(['topics', p.topic], { from: mode, at: where, q, partition: only ?? undefined, isolation: at.get('isolation') ?? undefined, ...query }, true)
  }
  useEffect(() => hold(paused), [paused])
  useEffect(() => {
    setOpen(undefined)
    setPaused(false)
  }, [mode, where, q, only, isolation])
  if (!p.mayRead) return <Empty title="You may not read this topic">Its partitions and configuration can be seen.</Empty>
  return (
    <div class={`messages ${open ? 'split' : ''}`}>
      <div class="bar">
        <div class="segments" role="group" aria-label="Where to read">
          {modes.map(m => (
            <button type="button" aria-pressed={m.id === mode} onClick={() => set({ from: m.id, at: m.id === 'time' ? localTime(Date.now() - 3_600_000) : undefined })}>
              {m.id === 'live' && <span class={`dot ${mode === 'live' ? 'on' : ''}`} />}
              {m.name}
            </button>
          ))}
        </div>
        {mode === 'offset' && <input class="place" type="number" min={0} aria-label="Offset" placeholder="0" value={where} onChange={e => set({ at: e.currentTarget.value })} />}
        {mode === 'time' && <input class="place" type="datetime-local" step="1" aria-label="Time" value={where} onChange={e => set({ at: e.currentTarget.value })} />}
        {p.partitions.length > 1 && <Partition all={p.partitions} value={only ?? ''} none="all partitions" set={partition => set({ partition })} />}
        <select aria-label="Of transactions" title="Which messages of transactions are read (isolation.level)" value={isolation} onChange={e => set({ isolation: e.currentTarget.value === 'read_committed' ? 'read_committed' : undefined })}>
          <option value="read_uncommitted">read uncommitted</option>
          <option value="read_committed">read committed</option>
        </select>
        <Search value={q} label="Search: words, key:…, /regex/, .json.path=value" wrong={!!wrong} onInput={v => set({ q: v })} />
        {mode === 'live' && (
          <Button icon={paused ? 'play' : 'pause'} onClick={() => setPaused(!paused)}>
            {paused ? 'Go on' : 'Hold'}
          </Button>
        )}
        <Export list={view.list} topic={p.topic} />
      </div>
      {wrong && <p class="wrong">{shown(wrong)}</p>}
      {view.error && <Failure error={view.error} again={mode === 'live' ? undefined : more} />}
      <div class="sides">
        <List view={view} mode={mode} open={open} onOpen={setOpen} onTop={top => mode === 'live' && !paused && hold(!top)} more={more} stop={stop} q={q} onResend={p.onResend} />
        {open && <Detail message={open} onClose={() => setOpen(undefined)} onResend={p.onResend && (() => p.onResend!(fromMessage(open)))} />}
      </div>
    </div>
  )
}

function List(p: {
  view: View; mode: Mode; open?: Message; q: string
  onOpen: (m: Message) => void; onTop: (top: boolean) => void; more: () => void; stop: () => void
  onResend?: (d: Draft) => void
}) {
  const { view, mode } = p
  const live = mode === 'live'
  return (
    <div class="side">
      {view.list.length ? (
        <Rows label="Messages" class="tall records" rows={view.list} columns={columns} keyOf={m => m.id} onOpen={p.onOpen} current={p.open} onTop={p.onTop} />
      ) : live ? (
        <Empty title={p.q ? 'Nothing that fits has come yet' : 'Waiting for messages'}>What is written from now on appears here.</Empty>
      ) : view.busy ? (
        <Waiting />
      ) : (
        !view.error && (
          <Empty title={p.q ? 'Nothing fits' : 'No messages here'}>
            {p.q ? `${plain(view.scanned)} were looked at.` : p.onResend ? (
              <button type="button" class="text" onClick={() => p.onResend!({})}>
                Produce the first one
              </button>
            ) : undefined}
          </Empty>
        )
      )}
      <footer class="foot">
        {live ? (
          <span class="quiet">{plain(view.scanned)} came{view.rate !== undefined && `, ${short(view.rate)}/s`}</span>
        ) : (
          <>
            <span class="quiet">{p.q ? `${plain(view.list.length)} of ${count(view.scanned)} looked at` : `${plain(view.list.length)}`}</span>
            {view.busy ? (
              p.q && <Button onClick={p.stop}>Stop</Button>
            ) : (
              !view.done && !view.error && <Button onClick={p.more}>{p.q ? 'Search on' : mode === 'newest' ? 'Older' : 'Next'}</Button>
            )}
            {view.done && view.list.length > 0 && <span class="quiet">that is all</span>}
            {!!view.undecided && <span class="quiet">{count(view.undecided)} more wait for transactions that are not decided</span>}
          </>
        )}
      </footer>
    </div>
  )
}
const plain = (n: number): string => `${count(n)} ${n === 1 ? 'message' : 'messages'}`

function Export({ list, topic }: { list: Message[]; topic: string }) {
  return (
    <select class="export" aria-label="Export what is listed" value="" disabled={!list.length} onChange={e => {
      const how = e.currentTarget.value
      e.currentTarget.value = ''
      if (how === 'jsonl' || how === 'csv') exportAs(how, topic, list)
    }}>
      <option value="">Export …</option>
      <option value="jsonl">as lines of JSON</option>
      <option value="csv">as CSV</option>
    </select>
  )
}
