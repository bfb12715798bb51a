// Record batches (magic 2).
import { Reader, Writer, decode, encode } from './bytes.js'
import { codecNames, codecs, type Compression } from './compression.js'
import { crc32c } from './crc32c.js'
import { KafkaError, corrupt } from './errors.js'

export interface Header {
  key: string
  value: Uint8Array | null
}

/** What stands in a log. Keys, values and headers' values are views of a larger buffer: copy what is kept for long. */
export interface ConsumedRecord {
  topic: string
  partition: number
  offset: bigint
  /** ms since 1970; -1: none */
  timestamp: number
  key: Uint8Array | null
  /** null: a tombstone */
  value: Uint8Array | null
  headers: Header[]
}

/** What is written. Strings are written as UTF-8. */
export interface ProducedRecord {
  key?: Uint8Array | string | null
  /** null: a tombstone */
  value: Uint8Array | string | null
  headers?: Header[] | Record<string, Uint8Array | string | null>
  /** Without one the key decides as in Kafka's own clients; records without a key go round. */
  partition?: number
  /** ms since 1970; now when there is none */
  timestamp?: number
}

export interface Identity {
  producerId: bigint
  producerEpoch: number
}

export const toBytes = (v: Uint8Array | string | null | undefined): Uint8Array | null =>
  typeof v === 'string' ? encode(v) : v ?? null

export const toHeaders = (h: ProducedRecord['headers']): Header[] =>
  Array.isArray(h) ? h : Object.entries(h ?? {}).map(([key, value]) => ({ key, value: toBytes(value) }))

const putBytes = (w: Writer, b: Uint8Array | null): void => {
  w.varint(b ? b.length : -1)
  if (b) w.raw(b)
}

export interface Batch {
  baseOffset: bigint
  /** the last offset that the batch stands for, also when its record is gone */
  lastOffset: bigint
  leaderEpoch: number
  attributes: number
  producerId: bigint
  producerEpoch: number
  baseSequence: number
  /** A marker of a transaction's end, or the like: no records. */
  control: boolean
  /** Of a transaction that was aborted, as far as those were told. */
  aborted: boolean
  /** Read when it is iterated over, so that small bytes do not become many objects at once. */
  records: Iterable<ConsumedRecord>
}

/** One batch with all these records. */
export async function encodeBatch(
  records: ProducedRecord[],
  compression: Compression = 'none',
  id: Identity = { producerId: -1n, producerEpoch: -1 },
  sequence = -1,
  now: number = Date.now(),
): Promise<Uint8Array> {
  const first = records[0].timestamp ?? now
  let last = first
  const body = new Writer(false, 1024)
  records.forEach((r, i) => {
    const time = r.timestamp ?? now
    last = Math.max(last, time)
    const w = new Writer()
    w.i8(0)
    w.varint(time - first)
    w.varint(i)
    putBytes(w, toBytes(r.key))
    putBytes(w, toBytes(r.value))
    const headers = toHeaders(r.headers)
    w.varint(headers.length)
    for (const h of headers) {
      putBytes(w, encode(h.key))
      putBytes(w, h.value)
    }
    body.varint(w.at)
    body.raw(w.done())
  })
  const data = compression === 'none' ? body.done() : await (await codecs()).compress(compression, body.done())
  const w = new Writer(false, data.length + 64)
  w.i64(0n)
  w.i32(data.length + 49)
  w.i32(-1) // leader epoch
  w.i8(2)
  w.i32(0) // CRC
  w.i16(codecNames.indexOf(compression))
  w.i32(records.length - 1)
  w.i64(BigInt(first))
  w.i64(BigInt(last))
  w.i64(id.producerId)
  w.i16(id.producerEpoch)
  w.i32(sequence)
  w.i32(records.length)
  w.raw(data)
  w.patch(17, crc32c(w.done().subarray(21)))
  return w.done()
}

/** What the compressed batches of one answer may decompress to, and what of that is left. */
export class Room {
  left: number
  constructor(readonly all: number) {
    this.left = all
  }
}

/** From which offset on the transactions of which producers were aborted. */
export type Aborted = { producerId: bigint; firstOffset: bigint }[]

/**
 * The batches of one partition in an answer to Fetch. One that is cut off at the end is left out, and so is what follows
 * one for which those before it have left no room. `from` leaves out records below it, which come along when they share
 * a batch. Records of aborted transactions are left out, up to the marker of each one's end.
 */
export async function decodeBatches(
  set: Uint8Array,
  topic: string,
  partition: number,
  from = 0n,
  room = new Room(64 << 20),
  transactions: Aborted = [],
): Promise<Batch[]> {
  const r = new Reader(set)
  const batches: Batch[] = []
  const begins = [...transactions].sort((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1))
  let begun = 0
  const aborted = new Set<bigint>()
  while (r.left > 12) {
    try {
      const start = r.at
      const baseOffset = r.i64()
      const size = r.i32()
      if (size > r.left) break
      if (size < 49) throw corrupt(`a batch of ${size} bytes`)
      const end = r.at + size
      const leaderEpoch = r.i32()
      if (r.i8() !== 2) throw new KafkaError(43, 'a record format other than 2')
      const crc = r.u32()
      if (crc !== crc32c(set.subarray(r.at, end))) throw new KafkaError(2, `wrong checksum in ${topic}/${partition} at ${baseOffset}`)
      const attributes = r.i16()
      const lastDelta = r.i32()
      const baseTime = r.i64()
      const maxTime = r.i64()
      const producerId = r.i64()
      const producerEpoch = r.i16()
      const baseSequence = r.i32()
      const count = r.i32()
      if (lastDelta < 0 || baseOffset < 0n || count < 0) throw corrupt('a batch that counts backwards')
      const batch: Batch = {
        baseOffset, lastOffset: baseOffset + BigInt(lastDelta), leaderEpoch, attributes, producerId, producerEpoch, baseSequence,
        control: (attributes & 0x20) !== 0, aborted: false, records: [],
      }
      for (; begun < begins.length && begins[begun].firstOffset <= batch.lastOffset; begun++) aborted.add(begins[begun].producerId)
      batch.aborted = !batch.control && (attributes & 0x10) !== 0 && aborted.has(producerId)
      if (batch.control || (batch.lastOffset >= from && !batch.aborted)) {
        let data = r.take(end - r.at)
        const codec = attributes & 7
        if (codec) {
          try {
            data = await (await codecs()).decompress(codec, data, room.left)
          } catch (e) {
            if ((e as KafkaError).code === 10 && room.left < room.all) break
            throw e
          }
          room.left -= data.length
        }
        if (count * 7 > data.length) throw corrupt(`${count} records in ${data.length} bytes`)
        const appendTime = attributes & 8 ? Number(maxTime) : null
        batch.records = {
          [Symbol.iterator]: () => readRecords(new Reader(data), count, batch, topic, partition, batch.control ? 0n : from, Number(baseTime), appendTime),
        }
        // The key of a marker: a version, and 0 for an abort, 1 for a commit.
        if (batch.control) for (const { key } of batch.records) if (key && key.length > 3 && !key[2] && !key[3]) aborted.delete(producerId)
      }
      batches.push(batch)
      r.at = end
      if (r.at <= start) throw corrupt('a batch without an end')
    } catch (e) {
      // What comes before it is good, and then it is the first.
      if (batches.some(b => b.lastOffset >= from)) break
      throw e
    }
  }
  return batches
}

function* readRecords(
  r: Reader,
  count: number,
  batch: Batch,
  topic: string,
  partition: number,
  from: bigint,
  baseTime: number,
  appendTime: number | null,
): Generator<ConsumedRecord> {
  const bytes = (): Uint8Array | null => {
    const n = r.varint()
    return n < 0 ? null : r.take(n)
  }
  for (let i = 0; i < count; i++) {
    const n = r.varint()
    const end = r.at + n
    if (n < 0 || n > r.left) throw corrupt('a record that is longer than its batch')
    r.i8()
    const timestamp = appendTime ?? baseTime + r.varlong()
    if (appendTime !== null) r.varlong()
    const offset = batch.baseOffset + BigInt(r.varint())
    const key = bytes()
    const value = bytes()
    const count = r.varint()
    r.count(count, 2)
    const headers: Header[] = []
    for (let h = 0; h < count; h++) headers.push({ key: decode(bytes() ?? new Uint8Array()), value: bytes() })
    if (r.at !== end) throw corrupt('a record that is not as long as it says')
    if (offset < batch.baseOffset || offset > batch.lastOffset) throw corrupt('a record outside of its batch')
    if (offset >= from) yield { topic, partition, offset, timestamp, key, value, headers }
  }
  r.end()
}
