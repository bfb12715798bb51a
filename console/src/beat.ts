// A client under a fault drill: it writes numbered records to each partition of a topic, twenty a
// second, reads them back, and notes how long each took. What it finds is what any client would.
import type { Client } from 'trimaran'
import { Value } from './state.js'

export const topic = 'drill'
const everyMs = 50
/** So long is what can be seen of the past. */
export const spanMs = 60_000
// While so many wait nothing more is sent: nobody would learn more from it.
const mostWaiting = 300

export interface Sent {
  at: number
  /** how long it took; undefined: it waits still */
  tookMs?: number
  /** nobody knows whether it was written */
  failed?: boolean
}
export interface Lane {
  partition: number
  sent: Sent[]
  waiting: number
  next: number
  /** numbers that were acknowledged and not read back yet */
  owed: Set<number>
  expected: number
}
export interface Event {
  at: number
  text: string
  /** the longest wait of what was sent around then and later, until the next event */
  worstMs: number
}

export class Beat extends Value<number> {
  lanes: Lane[] = []
  events: Event[] = []
  acknowledged = 0
  readBack = 0
  /** read twice, or behind a later one */
  doubled = 0
  failed = 0
  worstMs = 0
  running = false
  error?: Error
  private stopped = new AbortController()
  private run = ''
  constructor() {
    super(0)
  }

  private changed(): void {
    this.set(this.get() + 1)
  }

  /** Writes until it is stopped. The topic has to be there. */
  async start(client: Client, partitions: number[]): Promise<void> {
    if (this.running) return
    this.running = true
    this.error = undefined
    this.run = Math.random().toString(36).slice(2, 10)
    const control = (this.stopped = new AbortController())
    const { signal } = control
    this.lanes = partitions.map(partition => ({ partition, sent: [], waiting: 0, next: 0, owed: new Set(), expected: 0 }))
    this.events = []
    this.acknowledged = this.readBack = this.doubled = this.failed = this.worstMs = 0
    this.changed()
    try {
      const ends = await client.listOffsets(topic, 'latest', partitions, { signal })
      void this.read(client, [...ends].map(([partition, e]) => ({ topic, partition, offset: e.offset })), signal)
      for (const lane of this.lanes) void this.write(client, lane, signal)
    } catch (e) {
      this.error = e as Error
      this.stop()
    }
  }

  stop(): void {
    this.running = false
    this.stopped.abort()
    this.changed()
  }

  /** What somebody did, so that it can be seen what followed. */
  mark(text: string): void {
    this.events.unshift({ at: Date.now(), text, worstMs: 0 })
    this.events.splice(12)
    this.changed()
  }

  // Each partition has a connection of its own: answers wait for those in front of them.
  private async write(client: Client, lane: Lane, signal: AbortSignal): Promise<void> {
    const producer = client.producer({ deliveryTimeoutMs: 60_000 })
    const send = async (n: number): Promise<void> => {
      const one: Sent = { at: Date.now() }
      lane.sent.push(one)
      lane.waiting++
      lane.owed.add(n)
      try {
        await producer.send(topic, { value: `${this.run} ${n}`, partition: lane.partition }, { signal })
        one.tookMs = Date.now() - one.at
        this.acknowledged++
        this.worstMs = Math.max(this.worstMs, one.tookMs)
        const event = this.events.find(e => e.at <= one.at + one.tookMs!)
        if (event) event.worstMs = Math.max(event.worstMs, one.tookMs)
      } catch (e) {
        // It may be there or not.
        lane.owed.delete(n)
        one.failed = true
        if (!signal.aborted) {
          this.failed++
          this.error = e as Error
        }
      }
      lane.waiting--
    }
    const timer = setInterval(() => {
      while (lane.sent.length && lane.sent[0].at < Date.now() - spanMs - 2_000) lane.sent.shift()
      if (lane.waiting < mostWaiting) void send(lane.next++)
      this.changed()
    }, everyMs)
    signal.addEventListener('abort', () => {
      clearInterval(timer)
      void producer.close()
    })
  }

  private async read(client: Client, offsets: { topic: string; partition: number; offset: bigint }[], signal: AbortSignal): Promise<void> {
    const lanes = new Map(this.lanes.map(l => [l.partition, l]))
    try {
      for await (const r of client.tail({ topics: topic, partitions: offsets.map(o => o.partition), offsets, reset: 'earliest', maxWaitMs: 250, signal })) {
        const [run, number] = new TextDecoder().decode(r.value ?? undefined).split(' ')
        const lane = lanes.get(r.partition)
        if (run !== this.run || !lane) continue
        const n = Number(number)
        this.readBack++
        // Each partition has them in the order in which they were sent, each once.
        if (n < lane.expected) this.doubled++
        lane.expected = Math.max(lane.expected, n + 1)
        lane.owed.delete(n)
      }
    } catch (e) {
      if (!signal.aborted) this.error = e as Error
    }
  }

  /** Records that were acknowledged, of which later ones came back, and they did not. */
  get lost(): number {
    return this.lanes.reduce((sum, l) => sum + [...l.owed].filter(n => n < l.expected).length, 0)
  }
}

export const beat = new Beat()
