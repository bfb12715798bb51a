// Writing: idempotent (KIP-98), one batch of a partition under way at a time, so that order holds and what is sent
// again is appended once.
import { InitProducerId, Produce } from './apis.js'
import type { CallOptions, Client, Lane } from './client.js'
import type { Compression } from './compression.js'
import { KafkaError, check, retriable } from './errors.js'
import { encodeBatch, toBytes, toHeaders, type Header, type Identity, type ProducedRecord } from './records.js'
import { abortable, backoff, sleep, within } from './wait.js'

export interface ProducerOptions {
  /** 'none' */
  compression?: Compression
  /** Records that wait for the batch in front of them go together in batches of about so many bytes; 512 KiB */
  batchBytes?: number
  /** How long a batch is tried for; 120,000 ms */
  deliveryTimeoutMs?: number
}

export interface Written {
  topic: string
  partition: number
  /** -1 if the cluster knows that it has the record and not where */
  offset: bigint
}

interface Item {
  records: Bytes[]
  size: number
  resolve(baseOffset: bigint): void
  reject(e: unknown): void
}

interface Partition {
  topic: string
  partition: number
  queue: Item[]
  busy?: Promise<void>
  id?: Identity
  sequence: number
}

interface Bytes extends ProducedRecord {
  key: Uint8Array | null
  value: Uint8Array | null
  headers: Header[]
}

const sizeOf = (v: Uint8Array | null): number => (v ? v.length : 0)
const refreshMs = 60_000
// With these nothing was appended.
const notAppended = [3, 5, 6]
// The cluster does not know this producer, or knows something else of it.
const otherIdentity = [45, 47, 59]

export class Producer {
  private lane: Lane
  private ids?: Promise<Identity>
  private parts = new Map<string, Partition>()
  private topics = new Map<string, { at: number; partitions: Promise<number[]> }>()
  private turn = 0
  constructor(
    private client: Client,
    private o: ProducerOptions,
  ) {
    this.lane = client.lane()
  }

  /**
   * Appends records and tells where. Those of one partition keep their order, over calls, too. When it fails with
   * REQUEST_TIMED_OUT or NETWORK_EXCEPTION, or is aborted, the records may have been appended or not, but not twice.
   */
  send(topic: string, records: ProducedRecord | ProducedRecord[], o: CallOptions = {}): Promise<Written[]> {
    return within(o, signal => this.write(topic, [records].flat(), signal))
  }

  private async write(topic: string, records: ProducedRecord[], signal?: AbortSignal): Promise<Written[]> {
    const all = records.map(r => ({ ...r, key: toBytes(r.key), value: toBytes(r.value), headers: toHeaders(r.headers) }))
    if (!all.length) return []
    const partitions = await abortable(this.partitions(topic), signal)
    signal?.throwIfAborted()
    const rest = partitions[this.turn++ % partitions.length]
    const by = new Map<number, number[]>()
    all.forEach((r, i) => {
      const p = r.partition ?? (r.key ? partitions[(murmur2(r.key) & 0x7fffffff) % partitions.length] : rest)
      const of = by.get(p)
      if (of) of.push(i)
      else by.set(p, [i])
    })
    const written: Written[] = new Array(all.length)
    const parts = [...by].flatMap(([partition, indexes]) =>
      this.chunks(all, indexes).map(async chunk => {
        const base = await this.enqueue(topic, partition, chunk.map(i => all[i]), signal)
        chunk.forEach((i, n) => (written[i] = { topic, partition, offset: base < 0n ? base : base + BigInt(n) }))
      }),
    )
    await Promise.all(parts)
    return written
  }

  /**
   * Connects, learns a topic's partitions and gets the producer's identity, so that the first `send` to it is one request.
   * Without it that one does all this.
   */
  async ready(topic: string, o: CallOptions = {}): Promise<void> {
    await within(o, signal => abortable(Promise.all([this.partitions(topic), this.identity()]), signal))
  }

  /** Waits until nothing is under way. What failed has told its sender. */
  async flush(): Promise<void> {
    for (const p of this.parts.values()) await p.busy
  }

  async close(): Promise<void> {
    await this.flush()
    this.client.drop(this.lane)
  }

  private partitions(topic: string): Promise<number[]> {
    const known = this.topics.get(topic)
    if (known && Date.now() - known.at < refreshMs) return known.partitions
    const partitions = this.client.partitions(topic, { create: this.client.options.autoCreateTopics })
    partitions.catch(() => this.topics.delete(topic))
    this.topics.set(topic, { at: Date.now(), partitions })
    return partitions
  }

  private chunks(all: Bytes[], indexes: number[]): number[][] {
    const chunks: number[][] = []
    let size = Infinity
    for (const i of indexes) {
      const n = recordSize(all[i])
      if (size + n > (this.o.batchBytes ?? 512 << 10)) {
        chunks.push([])
        size = 0
      }
      chunks[chunks.length - 1].push(i)
      size += n
    }
    return chunks
  }

  private enqueue(topic: string, partition: number, records: Bytes[], signal?: AbortSignal): Promise<bigint> {
    const key = topic + '/' + partition
    let p = this.parts.get(key)
    if (!p) this.parts.set(key, (p = { topic, partition, queue: [], sequence: 0 }))
    const part = p
    let drop: (() => void) | undefined
    return new Promise<bigint>((resolve, reject) => {
      const item: Item = { records, size: records.reduce((n, r) => n + recordSize(r), 0), resolve, reject }
      drop = () => {
        const at = part.queue.indexOf(item)
        if (at >= 0) part.queue.splice(at, 1)
        reject(signal!.reason)
      }
      signal?.addEventListener('abort', drop)
      part.queue.push(item)
      part.busy ??= this.drain(part).finally(() => (part.busy = undefined))
    }).finally(() => signal?.removeEventListener('abort', drop!))
  }

  private async drain(p: Partition): Promise<void> {
    await Promise.resolve() // what is sent in the same breath goes together
    while (p.queue.length) {
      const items: Item[] = [p.queue.shift()!]
      let size = items[0].size
      while (p.queue.length && (size += p.queue[0].size) <= (this.o.batchBytes ?? 512 << 10)) items.push(p.queue.shift()!)
      try {
        let offset = await this.deliver(p, items.flatMap(i => i.records))
        for (const i of items) {
          i.resolve(offset)
          if (offset >= 0n) offset += BigInt(i.records.length)
        }
      } catch (e) {
        for (const i of items) i.reject(e)
      }
    }
  }

  private async deliver(p: Partition, records: Bytes[]): Promise<bigint> {
    const { topic, partition } = p
    const began = Date.now()
    let unknownSince = 0
    let batch: Uint8Array | undefined
    let maybe = false // an attempt may have appended it
    for (let attempt = 0; ; attempt++) {
      let sent = false
      try {
        if (!batch) {
          p.id ??= await this.identity()
          batch = await encodeBatch(records, this.o.compression, p.id, p.sequence, began)
        }
        const answer = await this.lane.call(
          Produce,
          { transactionalId: null, acks: -1, timeoutMs: 8000, topics: [{ topic, partitions: [{ partition, records: batch }] }] },
          { onSend: () => (sent = true) },
        )
        const a = answer.topics[0]?.partitions[0]
        if (!a || a.partition !== partition) throw new KafkaError(2, 'an answer about another partition')
        if (a.errorCode !== 46) check(a.errorCode, a.recordErrors[0]?.message ?? a.errorMessage)
        p.sequence = (p.sequence + records.length) % 2 ** 31
        return a.errorCode ? -1n : a.baseOffset
      } catch (e) {
        const code = (e as KafkaError).code
        const fresh = otherIdentity.includes(code) && !maybe
        if (code === 3) {
          unknownSince ||= Date.now()
          this.topics.delete(topic) // it may have other partitions now
        }
        const late = Date.now() - began > (this.o.deliveryTimeoutMs ?? 120_000) || (unknownSince && Date.now() - unknownSince > 1500)
        if (sent && retriable(e) && !notAppended.includes(code)) maybe = true
        if (late || !(retriable(e) || fresh)) {
          // The cluster may expect any of two numbers next: a new identity begins anew.
          if (maybe || otherIdentity.includes(code)) this.forget(p)
          throw e
        }
        if (fresh) {
          this.forget(p)
          batch = undefined
        }
        await sleep(backoff(attempt))
      }
    }
  }

  private forget(p: Partition): void {
    p.id = this.ids = undefined
    p.sequence = 0
  }

  // Partitions share an identity until one has to forget it.
  private identity(): Promise<Identity> {
    const ids = (this.ids ??= this.client
      .ask(InitProducerId, { transactionalId: null, transactionTimeoutMs: 60_000, producerId: -1n, producerEpoch: -1 }, a => check(a.errorCode), {}, this.lane)
      .then(a => ({ producerId: a.producerId, producerEpoch: a.producerEpoch })))
    ids.catch(() => (this.ids = undefined))
    return ids
  }
}

// At most what a record takes.
const recordSize = (r: Bytes): number => r.headers.reduce((n, h) => n + 10 + 3 * h.key.length + sizeOf(h.value), 40 + sizeOf(r.key) + sizeOf(r.value))

/** Kafka's hash of a key, which tells its partition. */
export function murmur2(b: Uint8Array): number {
  const m = 0x5bd1e995
  let h = 0x9747b28c ^ b.length
  let i = 0
  for (; i + 4 <= b.length; i += 4) {
    let k = Math.imul(b[i] | (b[i + 1] << 8) | (b[i + 2] << 16) | (b[i + 3] << 24), m)
    k ^= k >>> 24
    h = Math.imul(h, m) ^ Math.imul(k, m)
  }
  const left = b.length - i
  if (left) {
    if (left > 2) h ^= b[i + 2] << 16
    if (left > 1) h ^= b[i + 1] << 8
    h = Math.imul(h ^ b[i], m)
  }
  h = Math.imul(h ^ (h >>> 13), m)
  return h ^ (h >>> 15)
}
