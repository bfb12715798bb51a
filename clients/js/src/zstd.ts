// Zstandard, reading (RFC 8878). A chunk of its own. Written here rather than taken from a library because what
// it reads is hostile: no length is believed, and the output is bounded before it grows. Checksums are not compared,
// since the batch has its own; dictionaries are refused.
import { Output } from './codecs.js'
import { KafkaError, corrupt } from './errors.js'

export const blockMax = 1 << 17
const bad = (what: string): KafkaError => corrupt('zstd: ' + what)
export const highBit = (n: number): number => 31 - Math.clz32(n)

/** Bits from the end to the start. Below the start there are zeros, which `at < 0` tells. */
class Backward {
  at: number
  constructor(readonly b: Uint8Array) {
    const last = b[b.length - 1]
    if (!last) throw bad('a stream without an end')
    this.at = b.length * 8 - 8 + highBit(last)
  }
  /** Up to 24 bits that begin at a position. */
  peek(at: number, n: number): number {
    const i = at >> 3
    const { b } = this
    return ((b[i] | (b[i + 1] << 8) | (b[i + 2] << 16) | (b[i + 3] << 24)) >>> (at & 7)) & ((1 << n) - 1)
  }
  bits(n: number): number {
    if (n > 16) return this.bits(n - 16) * 65536 + this.bits(16)
    this.at -= n
    return this.peek(this.at, n)
  }
}

export interface Fse {
  log: number
  symbol: Uint8Array
  bits: Uint8Array
  next: Uint16Array
}

function fse(counts: number[], log: number): Fse {
  const size = 1 << log
  const t: Fse = { log, symbol: new Uint8Array(size), bits: new Uint8Array(size), next: new Uint16Array(size) }
  const seen: number[] = []
  let high = size
  counts.forEach((n, s) => {
    if (n < 0) t.symbol[--high] = s
    seen[s] = Math.abs(n)
  })
  let at = 0
  counts.forEach((n, s) => {
    for (; n > 0; n--) {
      t.symbol[at] = s
      do at = (at + (size >> 1) + (size >> 3) + 3) & (size - 1)
      while (at >= high)
    }
  })
  for (let i = 0; i < size; i++) {
    const n = seen[t.symbol[i]]++
    t.bits[i] = log - highBit(n)
    t.next[i] = (n << t.bits[i]) - size
  }
  return t
}

/** A table's description and how many bytes it takes. */
function readFse(b: Uint8Array, maxLog: number, maxSymbol: number): [Fse, number] {
  let at = 0
  const bits = (n: number): number => {
    const i = at >> 3
    const v = ((b[i] | (b[i + 1] << 8) | (b[i + 2] << 16)) >>> (at & 7)) & ((1 << n) - 1)
    at += n
    return v
  }
  const log = bits(4) + 5
  if (log > maxLog) throw bad('accuracy')
  const counts: number[] = []
  let left = 1 << log
  while (left > 0) {
    if (counts.length > maxSymbol) throw bad('symbols')
    const n = highBit(left + 1) + 1
    let v = bits(n)
    const low = (1 << (n - 1)) - 1
    const threshold = (1 << n) - 2 - left
    if ((v & low) < threshold) {
      at--
      v &= low
    } else if (v > low) v -= threshold
    counts.push(v - 1)
    left -= Math.abs(v - 1)
    if (v === 1) {
      for (let more = 3; more === 3; ) {
        more = bits(2)
        for (let i = 0; i < more; i++) counts.push(0)
        if (counts.length > maxSymbol) throw bad('symbols')
      }
    }
  }
  const size = (at + 7) >> 3
  if (left < 0 || size > b.length || counts.length > maxSymbol + 1) throw bad('probabilities')
  return [fse(counts, log), size]
}

interface Huffman {
  log: number
  symbol: Uint8Array
  bits: Uint8Array
}

function readHuffman(b: Uint8Array): [Huffman, number] {
  const weights: number[] = []
  let size = b[0]
  if (size === undefined) throw bad('no table')
  if (size >= 128) {
    const n = size - 127
    size = (n + 1) >> 1
    if (size >= b.length) throw bad('weights')
    for (let i = 0; i < n; i++) weights.push(i & 1 ? b[1 + (i >> 1)] & 15 : b[1 + (i >> 1)] >> 4)
  } else {
    if (size >= b.length) throw bad('weights')
    const [t, skip] = readFse(b.subarray(1, 1 + size), 6, 255)
    const s = new Backward(b.subarray(1 + skip, 1 + size))
    let now = s.bits(t.log)
    let other = s.bits(t.log)
    if (s.at < 0) throw bad('weights')
    for (;;) {
      weights.push(t.symbol[now])
      if (weights.length > 254) throw bad('weights')
      now = t.next[now] + s.bits(t.bits[now])
      if (s.at < 0) break
      ;[now, other] = [other, now]
    }
    weights.push(t.symbol[other])
  }
  let sum = 0
  for (const w of weights) sum += w && 1 << (w - 1)
  if (!sum) throw bad('weights')
  const log = highBit(sum) + 1
  const left = (1 << log) - sum
  if (log > 11 || left & (left - 1)) throw bad('weights')
  weights.push(highBit(left) + 1)
  const t: Huffman = { log, symbol: new Uint8Array(1 << log), bits: new Uint8Array(1 << log) }
  let at = 0
  for (let w = 1; w <= log; w++) {
    weights.forEach((v, s) => {
      if (v !== w) return
      const end = at + (1 << (w - 1))
      t.symbol.fill(s, at, end)
      t.bits.fill(log + 1 - w, at, end)
      at = end
    })
  }
  return [t, 1 + size]
}

function decodeHuffman(t: Huffman, b: Uint8Array, to: Uint8Array): void {
  const s = new Backward(b)
  let { at } = s
  for (let i = 0; i < to.length; i++) {
    const v = s.peek(at - t.log, t.log)
    to[i] = t.symbol[v]
    at -= t.bits[v]
  }
  if (at) throw bad('a literal stream of another length')
}

// Extra bits of the codes of lengths; what a code begins with follows from those before it.
const bases = (first: number, bits: number[]): [base: number[], bits: number[]] => [
  bits.map((_, i) => bits.slice(0, i).reduce((n, b) => n + 2 ** b, first)),
  bits,
]
const zeros = (n: number): number[] => new Array(n).fill(0)
export const [llBase, llBits] = bases(0, [...zeros(16), 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
export const [mlBase, mlBits] = bases(3, [...zeros(32), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
const ones = (n: number, v = 1): number[] => new Array(n).fill(v)
// Literal lengths, offsets, match lengths: predefined table, largest log, largest code.
export const kinds: [Fse, number, number][] = [
  [fse([4, 3, ...ones(11, 2), 1, 1, 1, ...ones(9, 2), 3, 2, ...ones(5), ...ones(4, -1)], 6), 9, 35],
  [fse([...ones(6), 2, 2, 2, ...ones(15), ...ones(5, -1)], 5), 8, 31],
  [fse([1, 4, 3, ...ones(6, 2), ...ones(37), ...ones(7, -1)], 6), 9, 52],
]

interface Frame {
  start: number
  offsets: [number, number, number]
  huffman?: Huffman
  tables: (Fse | undefined)[]
}

function literals(b: Uint8Array, f: Frame): [Uint8Array, number] {
  const kind = b[0] & 3
  const format = (b[0] >> 2) & 3
  let head = 0
  for (let i = 4; i >= 0; i--) head = head * 256 + (b[i] ?? 0)
  if (kind < 2) {
    const n = format & 1 ? Math.floor(head / 16) & (format === 1 ? 0xfff : 0xfffff) : b[0] >> 3
    const size = format & 1 ? (format + 3) >> 1 : 1
    if (n > blockMax || size + (kind ? 1 : n) > b.length) throw bad('literals')
    return kind ? [new Uint8Array(n).fill(b[size]), size + 1] : [b.subarray(size, size + n), size + n]
  }
  const width = [10, 10, 14, 18][format]
  const size = [3, 3, 4, 5][format]
  const n = Math.floor(head / 16) % 2 ** width
  const packed = Math.floor(head / 2 ** (4 + width)) % 2 ** width
  const end = size + packed
  if (n > blockMax || end > b.length) throw bad('literals')
  let at = size
  if (kind === 2) {
    const [t, used] = readHuffman(b.subarray(at, end))
    f.huffman = t
    at += used
  }
  if (!f.huffman) throw bad('no literal table to use again')
  const out = new Uint8Array(n)
  if (!format) decodeHuffman(f.huffman, b.subarray(at, end), out)
  else {
    const part = (n + 3) >> 2
    if (at + 6 > end || part * 3 > n) throw bad('literal streams')
    let from = at + 6
    for (let i = 0; i < 4; i++) {
      const to = i < 3 ? from + (b[at + 2 * i] | (b[at + 2 * i + 1] << 8)) : end
      if (to > end) throw bad('literal streams')
      decodeHuffman(f.huffman, b.subarray(from, to), out.subarray(part * i, i < 3 ? part * (i + 1) : n))
      from = to
    }
  }
  return [out, end]
}

function block(b: Uint8Array, f: Frame, out: Output): void {
  const begin = out.at
  let [lits, at] = literals(b, f)
  let count = b[at++]
  if (count === undefined) throw bad('no sequences')
  if (count > 127) {
    count = count < 255 ? ((count - 128) << 8) | b[at++] : (b[at] | (b[at + 1] << 8)) + 0x7f00
    if (count >= 0x7f00) at += 2
  }
  if (count) {
    const modes = b[at++]
    if (at > b.length || modes & 3) throw bad('sequences')
    kinds.forEach(([predefined, maxLog, maxCode], k) => {
      const mode = (modes >> (6 - 2 * k)) & 3
      if (mode === 0) f.tables[k] = predefined
      else if (mode === 1) {
        const code = b[at++]
        if (!(code <= maxCode)) throw bad('code')
        f.tables[k] = { log: 0, symbol: Uint8Array.of(code), bits: new Uint8Array(1), next: new Uint16Array(1) }
      } else if (mode === 2) {
        const [t, used] = readFse(b.subarray(at), maxLog, maxCode)
        f.tables[k] = t
        at += used
      }
      if (!f.tables[k]) throw bad('no table to use again')
    })
    const [ll, of, ml] = f.tables as Fse[]
    if (at >= b.length) throw bad('sequences')
    const s = new Backward(b.subarray(at))
    let l = s.bits(ll.log)
    let o = s.bits(of.log)
    let m = s.bits(ml.log)
    const rep = f.offsets
    let taken = 0
    while (count--) {
      const code = of.symbol[o]
      let offset = 2 ** code + s.bits(code)
      const ms = ml.symbol[m]
      const match = mlBase[ms] + s.bits(mlBits[ms])
      const ls = ll.symbol[l]
      const n = llBase[ls] + s.bits(llBits[ls])
      if (offset > 3) {
        offset -= 3
        rep[2] = rep[1]
        rep[1] = rep[0]
        rep[0] = offset
      } else {
        const i = offset - (n ? 1 : 0)
        offset = i > 2 ? rep[0] - 1 : rep[i]
        if (i) {
          if (i > 1) rep[2] = rep[1]
          rep[1] = rep[0]
          rep[0] = offset
        }
      }
      if (s.at < 0 || taken + n > lits.length || out.at - begin + n + match > blockMax) throw bad('sequence')
      out.put(lits.subarray(taken, taken + n))
      taken += n
      out.copy(offset, match, f.start)
      if (count) {
        l = ll.next[l] + s.bits(ll.bits[l])
        m = ml.next[m] + s.bits(ml.bits[m])
        o = of.next[o] + s.bits(of.bits[o])
      }
    }
    if (s.at) throw bad('sequences of another length')
    lits = lits.subarray(taken)
  } else if (at !== b.length) throw bad('something behind the literals')
  out.put(lits)
  if (out.at - begin > blockMax) throw bad('block')
}

/** All frames of the input, to `max` bytes at most. */
export function zstd(b: Uint8Array, max: number): Uint8Array {
  const out = new Output(max, b.length * 4)
  let at = 0
  const number = (n: number): number => {
    let v = 0
    for (let i = n - 1; i >= 0; i--) v = v * 256 + (b[at + i] ?? 0)
    at += n
    if (at > b.length) throw bad('cut off')
    return v
  }
  while (at < b.length) {
    const magic = number(4)
    if (magic >= 0x184d2a50 && magic <= 0x184d2a5f) {
      at += number(4)
      continue
    }
    if (magic !== 0xfd2fb528) throw bad('magic')
    const flags = number(1)
    const single = flags & 32
    if (flags & 8) throw bad('reserved bit')
    if (!single) number(1)
    if (number([0, 1, 2, 4][flags & 3])) throw bad('a dictionary')
    number([single ? 1 : 0, 2, 4, 8][flags >> 6])
    const f: Frame = { start: out.at, offsets: [1, 4, 8], tables: [] }
    for (let last = 0; !last; ) {
      const head = number(3)
      last = head & 1
      const kind = (head >> 1) & 3
      const size = head >> 3
      const used = kind === 1 ? 1 : size
      if (kind === 3 || size > blockMax || at + used > b.length) throw bad('block')
      const data = b.subarray(at, at + used)
      at += used
      if (kind === 2) block(data, f, out)
      else if (kind === 0) out.put(data)
      else {
        out.room(size)
        out.bytes.fill(data[0], out.at, (out.at += size))
      }
    }
    if (flags & 4) number(4)
  }
  if (at > b.length) throw bad('cut off')
  return out.done()
}
