// Record batches (magic 2).
import { Reader, Writer, decode, encode } from './bytes.js'
import { compress, decompress, type Compression, codecNames } from './codecs.js'
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
  control: boolean
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
  const data = await compress(compression, body.done())
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

/**
 * The batches of one partition in an answer to Fetch. One that is cut off at the end is left out. `from` leaves out
 * records below it, which come along when they share a batch.
 */
export async function decodeBatches(
  set: Uint8Array,
  topic: string,
  partition: number,
  from = 0n,
  max = 64 << 20,
): Promise<Batch[]> {
  const r = new Reader(set)
  const batches: Batch[] = []
  while (r.left > 12) {
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
      control: (attributes & 0x20) !== 0, records: [],
    }
    batches.push(batch)
    if (batch.lastOffset >= from) {
      let data = r.take(end - r.at)
      const codec = attributes & 7
      if (codec) {
        data = await decompress(codec, data, max)
        max -= data.length
      }
      if (count * 7 > data.length) throw corrupt(`${count} records in ${data.length} bytes`)
      const appendTime = attributes & 8 ? Number(maxTime) : null
      batch.records = {
        [Symbol.iterator]: () => readRecords(new Reader(data), count, batch, topic, partition, from, Number(baseTime), appendTime),
      }
    }
    r.at = end
    if (r.at <= start) throw corrupt('a batch without an end')
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
    if (count < 0 || count * 2 > r.left) throw corrupt(`${count} headers in ${r.left} bytes`)
    const headers: Header[] = []
    for (let h = 0; h < count; h++) headers.push({ key: decode(bytes() ?? new Uint8Array()), value: bytes() })
    if (r.at !== end) throw corrupt('a record that is not as long as it says')
    if (offset < batch.baseOffset || offset > batch.lastOffset) throw corrupt('a record outside of its batch')
    if (offset >= from) yield { topic, partition, offset, timestamp, key, value, headers }
  }
  r.end()
}
