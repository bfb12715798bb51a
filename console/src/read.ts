// Reading messages in pieces, forward or backward, and what of them is kept and shown.
import { type ConsumedRecord } from 'trimaran'
import { Fetcher, type Cursor, type Isolation } from 'trimaran/tail'
import { client } from './link.js'
import { Exact, cut, hexOf, parseJson, text } from './format.js'

export interface Message extends ConsumedRecord {
  id: string
}

/** A copy of its own: what is read looks into a whole answer, which is much larger. */
export function keep(r: ConsumedRecord): Message {
  return {
    ...r,
    key: r.key && r.key.slice(),
    value: r.value && r.value.slice(),
    headers: r.headers.map(h => ({ key: h.key, value: h.value && h.value.slice() })),
    id: `${r.partition}/${r.offset}`,
  }
}

export const sizeOf = (m: ConsumedRecord): number => 200 + (m.key?.length ?? 0) + (m.value?.length ?? 0) + m.headers.reduce((n, h) => n + h.key.length + (h.value?.length ?? 0), 0)

export type Match = (r: ConsumedRecord) => boolean

/** What is at a path, such as `.customer.tier` or `.items.0.sku`, of a value that is JSON. */
function at(r: ConsumedRecord, path: string): unknown {
  const s = r.value && text(r.value)
  let v = s === undefined || s === null ? undefined : parseJson(s)?.json
  for (const name of path.split('.').slice(1)) {
    if (v === null || typeof v !== 'object' || !Object.hasOwn(v, name)) return undefined
    v = (v as Record<string, unknown>)[name]
  }
  return v
}

/** `.path=value`, and with !=, <, >, <= and >=, which compare numbers where both are. */
function comparison(part: string): Match | undefined {
  const m = /^((?:\.[^.=<>!"\s]+)+)(!=|<=|>=|=|<|>)("[^"]*"|\S*)$/.exec(part)
  if (!m) return undefined
  const [, path, op] = m
  const wanted = m[3].replace(/^"([^"]*)"$/, '$1')
  return r => {
    let v = at(r, path)
    if (v instanceof Exact) v = op === '=' || op === '!=' ? v.source : Number(v.source)
    if (v === undefined || (typeof v === 'object' && v !== null)) return false
    const numbers = typeof v === 'number' && wanted !== '' && Number.isFinite(Number(wanted))
    const [a, b] = numbers ? [v as number, Number(wanted)] : [String(v), wanted]
    if (op === '=') return a === b
    if (op === '!=') return a !== b
    if (op === '<') return a < b
    if (op === '>') return a > b
    return op === '<=' ? a <= b : a >= b
  }
}

/**
 * Understands what is searched for: words that all have to be somewhere; `key:` in front of one
 * for the key alone, `header:` for headers, /…/ for a regular expression, and `.path=value` for
 * what is in JSON. Throws what is wrong.
 */
export function matcher(query: string): Match | undefined {
  const parts = query.match(/(?:\.[^\s"]+"[^"]*"|(?:(?:key|value|header):)?(?:\/(?:\\.|[^/\\])+\/i?|"[^"]*"|\S+))/g)
  if (!parts) return undefined
  const tests = parts.map((part): Match => {
    const compared = comparison(part)
    if (compared) return compared
    const [, where = '', what] = /^(?:(key|value|header):)?([^]*)$/.exec(part)!
    const regex = /^\/((?:\\.|[^/\\])+)\/(i?)$/.exec(what)
    const word = what.replace(/^"([^"]*)"$/, '$1').toLowerCase()
    const expression = regex && new RegExp(regex[1], regex[2])
    const hit = (s: string): boolean => (expression ? expression.test(s) : s.toLowerCase().includes(word))
    const inBytes = (b: Uint8Array | null): boolean => b !== null && hit(text(cut(b, 1 << 16)) ?? hexOf(b.subarray(0, 4096)))
    return (r: ConsumedRecord): boolean =>
      ((where === '' || where === 'key') && inBytes(r.key)) ||
      ((where === '' || where === 'value') && inBytes(r.value)) ||
      ((where === '' || where === 'header') && r.headers.some(h => hit(h.key) || inBytes(h.value)))
  })
  return r => tests.every(t => t(r))
}

export type Level = NonNullable<Isolation['isolation']>
export type Start = 'newest' | 'earliest' | { offset: bigint } | { timestamp: number }

/**
 * The messages of some partitions from a place on, forward, or from the end backward. Each call of
 * `more` reads on until so many fit, everything is read, or it has looked at `most`.
 */
export class Scan {
  scanned = 0
  done = false
  /** offsets behind what is read, up to the topic's end: transactions there are not decided yet */
  undecided = 0n
  private cursors: Cursor[] = []
  private starts = new Map<number, bigint>()
  private begun = false
  private fetcher?: Fetcher
  constructor(
    readonly topic: string,
    readonly partitions: number[],
    readonly from: Start,
    readonly isolation: Level,
  ) {}

  private async begin(signal: AbortSignal): Promise<void> {
    const { topic, partitions, from, isolation } = this
    const o = { signal, isolation }
    const [starts, ends, all] = await Promise.all([
      client.listOffsets(topic, 'earliest', partitions, o),
      client.listOffsets(topic, 'latest', partitions, o),
      isolation === 'read_committed' ? client.listOffsets(topic, 'latest', partitions, { signal }) : undefined,
    ])
    const at = typeof from === 'object' && 'timestamp' in from ? await client.listOffsets(topic, from.timestamp, partitions, o) : undefined
    this.cursors = partitions.map(partition => {
      const start = starts.get(partition)!.offset
      const end = ends.get(partition)!.offset
      let offset = start
      if (from === 'newest') offset = end
      else if (at) offset = at.get(partition)!.offset < 0n ? end : at.get(partition)!.offset
      else if (typeof from === 'object' && 'offset' in from) offset = from.offset < start ? start : from.offset
      this.starts.set(partition, start)
      if (all && all.get(partition)!.offset > end) this.undecided += all.get(partition)!.offset - end
      return { topic, partition, offset, end }
    })
    this.begun = true
  }

  async more(want: number, match: Match | undefined, signal: AbortSignal, onSome: (m: Message[]) => void, most = 50_000): Promise<void> {
    if (!this.begun) await this.begin(signal)
    const until = this.scanned + most
    let found = 0
    for (let step = 0; found < want && this.scanned < until && !this.done; step++) {
      const some = this.from === 'newest' ? await this.older(want, match ? step : 0, signal) : await this.newer(signal)
      this.scanned += some.length
      const fits = match ? some.filter(match) : some
      found += fits.length
      onSome(fits.map(keep))
    }
  }

  /** A window of each partition in front of what was read, larger with each step. */
  private async older(want: number, step: number, signal: AbortSignal): Promise<ConsumedRecord[]> {
    const open = this.cursors.filter(c => c.offset > this.starts.get(c.partition)!)
    const each = BigInt(Math.min(5_000, Math.ceil(want / Math.max(1, open.length)) * 2 ** step))
    const windows = open.map(c => {
      const start = this.starts.get(c.partition)!
      return { ...c, end: c.offset, offset: c.offset - each < start ? start : c.offset - each }
    })
    const lower = new Map(windows.map(w => [w.partition, w.offset]))
    const all = await this.read(windows, signal)
    for (const c of open) c.offset = lower.get(c.partition)!
    this.done = this.cursors.every(c => c.offset <= this.starts.get(c.partition)!)
    return all
  }

  /** One connection does for all of a scan: each would log in anew. */
  private of(cursors: Cursor[]): Fetcher {
    this.fetcher ??= new Fetcher(client, [], { maxBytes: this.from === 'newest' ? 4 << 20 : 256 << 10, maxWaitMs: 100, reset: 'earliest', isolation: this.isolation })
    if (this.fetcher.cursors !== cursors) this.fetcher.cursors.splice(0, Infinity, ...cursors)
    return this.fetcher
  }

  private async read(windows: Cursor[], signal: AbortSignal): Promise<ConsumedRecord[]> {
    const all: ConsumedRecord[] = []
    const ends = new Map(windows.map(w => [w.partition, w.end!]))
    const fetcher = this.of(windows)
    while (!fetcher.done) {
      for (const b of await fetcher.next(signal)) for (const r of b.records) if (r.offset < ends.get(r.partition)!) all.push(r)
    }
    return all
  }

  /** What one answer has. */
  private async newer(signal: AbortSignal): Promise<ConsumedRecord[]> {
    const all: ConsumedRecord[] = []
    const ends = new Map(this.cursors.map(c => [c.partition, c.end!]))
    const fetcher = this.of(this.cursors)
    if (!fetcher.done) {
      for (const b of await fetcher.next(signal)) for (const r of b.records) if (r.offset < ends.get(r.partition)!) all.push(r)
    }
    this.done = fetcher.done
    return all
  }

  close(): void {
    this.fetcher?.close()
    this.fetcher = undefined
  }
}

export const newestFirst = (a: ConsumedRecord, b: ConsumedRecord): number =>
  b.timestamp - a.timestamp || a.partition - b.partition || (a.offset < b.offset ? 1 : -1)
export const oldestFirst = (a: ConsumedRecord, b: ConsumedRecord): number => -newestFirst(a, b)

/** The last messages, within a number and a size. */
export class Ring {
  private list: Message[] = []
  private bytes = 0
  add(m: Message): void {
    this.list.push(m)
    this.bytes += sizeOf(m)
    if (this.list.length > 6_000 || this.bytes > 20 << 20) this.trim()
  }
  private trim(): void {
    let drop = 0
    while (this.list.length - drop > 5_000 || (this.bytes > 16 << 20 && drop < this.list.length)) this.bytes -= sizeOf(this.list[drop++])
    this.list = this.list.slice(drop)
  }
  /** the newest first */
  get all(): Message[] {
    return this.list.slice(-5_000).reverse()
  }
}
