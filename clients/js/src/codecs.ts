// Compression, a chunk of its own. gzip is the platform's, snappy and lz4 are read here. What writes them and what reads and
// writes zstd are chunks of their own, too.
import { concat } from './bytes.js'
import { loaded, type Compression } from './compression.js'
import { KafkaError, corrupt } from './errors.js'

/** The output of a decompressor: it grows, up to a bound, and gives back parts of what it has. */
export class Output {
  bytes: Uint8Array
  at = 0
  constructor(
    readonly max: number,
    size: number,
  ) {
    this.bytes = new Uint8Array(Math.max(64, Math.min(size, max)))
  }
  room(n: number): void {
    const want = this.at + n
    if (want > this.max) throw tooLarge(this.max)
    if (want > this.bytes.length) {
      const more = new Uint8Array(Math.min(this.max, Math.max(want, this.bytes.length * 2)))
      more.set(this.bytes.subarray(0, this.at))
      this.bytes = more
    }
  }
  put(b: Uint8Array | number[]): void {
    this.room(b.length)
    this.bytes.set(b, this.at)
    this.at += b.length
  }
  /** n bytes again from `distance` back, not before `first`; the two may overlap. */
  copy(distance: number, n: number, first: number): void {
    let from = this.at - distance
    if (distance < 1 || from < first) throw corrupt('a match from before the start')
    this.room(n)
    const b = this.bytes
    if (distance >= n) {
      b.copyWithin(this.at, from, from + n)
      this.at += n
    } else for (const end = this.at + n; this.at < end; ) b[this.at++] = b[from++]
  }
  done(): Uint8Array {
    return this.bytes.subarray(0, this.at)
  }
}

export const tooLarge = (max: number): KafkaError => new KafkaError(10, `decompresses to more than ${max} bytes`)

/** A part of the input that ends where it says. */
const slice = (b: Uint8Array, at: number, n: number): Uint8Array => {
  if (n < 0 || n > b.length - at) throw corrupt('compressed data is cut off')
  return b.subarray(at, at + n)
}
const u32le = (b: Uint8Array, at: number): number => {
  slice(b, at, 4)
  return (b[at] | (b[at + 1] << 8) | (b[at + 2] << 16) | (b[at + 3] << 24)) >>> 0
}
const u32be = (b: Uint8Array, at: number): number => {
  slice(b, at, 4)
  return ((b[at] << 24) | (b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3]) >>> 0
}

function snappyBlock(b: Uint8Array, out: Output): void {
  let size = 0
  let at = 0
  for (let shift = 0; ; shift += 7) {
    const c = slice(b, at++, 1)[0]
    size += (c & 127) * 2 ** shift
    if (c < 128) break
    if (shift > 27) throw corrupt('snappy length')
  }
  if (size > out.max - out.at) throw tooLarge(out.max)
  const first = out.at
  const end = first + size
  while (at < b.length) {
    const tag = b[at++]
    const kind = tag & 3
    let n = (tag >> 2) + 1
    if (!kind) {
      if (n > 60) {
        const more = n - 60
        const l = slice(b, at, more)
        n = 1
        for (let i = 0; i < more; i++) n += l[i] * 2 ** (8 * i)
        at += more
      }
      if (n > end - out.at) throw corrupt('snappy data is longer than it says')
      out.put(slice(b, at, n))
      at += n
    } else {
      const more = kind === 3 ? 4 : kind
      slice(b, at, more)
      let distance = b[at]
      if (kind === 1) {
        n = ((tag >> 2) & 7) + 4
        distance |= (tag & 0xe0) << 3
      } else if (kind === 2) distance |= b[at + 1] << 8
      else distance = u32le(b, at)
      at += more
      if (n > end - out.at) throw corrupt('snappy data is longer than it says')
      out.copy(distance, n, first)
    }
  }
  if (out.at !== end) throw corrupt('snappy data is shorter than it says')
}

// snappy-java's framing: a magic, two versions, then blocks behind their lengths. Frames may follow each other.
const xerial = [0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]
const isXerial = (b: Uint8Array, at: number): boolean => xerial.every((c, i) => b[at + i] === c)

function snappy(b: Uint8Array, max: number): Uint8Array {
  const out = new Output(max, b.length * 3)
  if (!isXerial(b, 0)) snappyBlock(b, out)
  else {
    for (let at = 0; at < b.length; ) {
      if (isXerial(b, at)) {
        slice(b, at, 16)
        at += 16
        continue
      }
      const n = u32be(b, at)
      snappyBlock(slice(b, at + 4, n), out)
      at += 4 + n
    }
  }
  return out.done()
}

function lz4Block(b: Uint8Array, out: Output, first: number): void {
  let at = 0
  const length = (n: number): number => {
    if (n < 15) return n
    for (let c = 255; c === 255; n += c) c = slice(b, at++, 1)[0]
    return n
  }
  while (at < b.length) {
    const token = b[at++]
    const n = length(token >> 4)
    out.put(slice(b, at, n))
    at += n
    if (at === b.length) return
    slice(b, at, 2)
    const distance = b[at] | (b[at + 1] << 8)
    at += 2
    out.copy(distance, length(token & 15) + 4, first)
  }
  throw corrupt('lz4 block without an end')
}

// Frames of lz4. Checksums are not compared: the batch has its own, and clients of 0.8 and 0.9 computed the header's
// over the wrong bytes.
function lz4(b: Uint8Array, max: number): Uint8Array {
  const out = new Output(max, b.length * 3)
  for (let at = 0; at < b.length; ) {
    const magic = u32le(b, at)
    if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      const n = u32le(b, at + 4)
      slice(b, at + 8, n)
      at += 8 + n
      continue
    }
    const flags = slice(b, at + 4, 3)[0]
    if (magic !== 0x184d2204 || flags >> 6 !== 1 || flags & 1) throw corrupt('lz4 frame header')
    const blockMax = 1 << (8 + 2 * ((b[at + 5] >> 4) & 7))
    at += 7 + (flags & 8 ? 8 : 0)
    const first = out.at
    for (;;) {
      const word = u32le(b, at)
      at += 4
      if (!word) break
      const n = word & 0x7fffffff
      const block = slice(b, at, n)
      at += n + (flags & 16 ? 4 : 0)
      const start = out.at
      if (word >>> 31) out.put(block)
      else lz4Block(block, out, flags & 32 ? start : first)
      if (out.at - start > blockMax) throw corrupt('lz4 block is larger than it may be')
    }
    at += flags & 4 ? 4 : 0
  }
  return out.done()
}

// TypeScript's declarations of streams of bytes are narrower than streams are.
type Pair = ReadableWritablePair<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>

const platform = (has: unknown): void => {
  if (!has) throw new KafkaError(76, 'this platform has no gzip')
}

/** A gzip stream, by the platform. Reads no more than it may give. */
async function gunzip(b: Uint8Array, max: number): Promise<Uint8Array> {
  platform(globalThis.DecompressionStream)
  const parts: Uint8Array[] = []
  let n = 0
  try {
    const stream = new Blob([b as BlobPart]).stream().pipeThrough(new DecompressionStream('gzip') as Pair)
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read()
      if (done) return concat(...parts)
      parts.push(value)
      if ((n += value.length) > max) {
        reader.cancel().catch(() => {})
        throw tooLarge(max)
      }
    }
  } catch (e) {
    throw e instanceof KafkaError ? e : new KafkaError(2, 'gzip data cannot be read', { cause: e })
  }
}

/** Decompresses what a batch's attributes say, to `max` bytes at most. */
export async function decompress(codec: number, b: Uint8Array, max: number): Promise<Uint8Array> {
  switch (codec) {
    case 1:
      return gunzip(b, max)
    case 2:
      return snappy(b, max)
    case 3:
      return lz4(b, max)
    case 4:
      return (await loaded(import('./zstd.js'))).zstd(b, max)
  }
  throw new KafkaError(76, `compression codec ${codec} is not known`)
}

/** Compresses for a producer. */
export async function compress(codec: Compression, b: Uint8Array): Promise<Uint8Array> {
  switch (codec) {
    case 'gzip':
      platform(globalThis.CompressionStream)
      return new Uint8Array(
        await new Response(new Blob([b as BlobPart]).stream().pipeThrough(new CompressionStream('gzip') as Pair) as ReadableStream).arrayBuffer(),
      )
    case 'snappy':
      return (await loaded(import('./lz.js'))).writeSnappy(b)
    case 'lz4':
      return (await loaded(import('./lz.js'))).writeLz4(b)
    case 'zstd':
      return (await loaded(import('./zstd-write.js'))).writeZstd(b)
  }
  throw new KafkaError(76, `compression ${codec} is not known`)
}
