// Bytes of the wire: big-endian numbers, varints, strings. A Reader never looks beyond its bytes, and no length is
// believed before it was compared with what is left.
import { KafkaError, corrupt } from './errors.js'

const utf8 = new TextEncoder()
const text = new TextDecoder('utf-8', { ignoreBOM: true })

export const encode = (s: string): Uint8Array => utf8.encode(s)
export const decode = (b: Uint8Array): string => text.decode(b)

export const concat = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const p of parts) {
    all.set(p, at)
    at += p.length
  }
  return all
}

export class Reader {
  at = 0
  /** How many more elements may be read: each becomes an object, which takes many times its bytes. */
  private elements = 2 << 20
  readonly view: DataView
  constructor(
    readonly bytes: Uint8Array,
    /** compact lengths and tagged fields (KIP-482) */
    readonly flexible = false,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get left(): number {
    return this.bytes.length - this.at
  }

  /** Moves on by n bytes and gives where they begin. */
  skip(n: number): number {
    const at = this.at
    if (n < 0 || n > this.bytes.length - at) throw corrupt(`${n} bytes where ${this.left} are left`)
    this.at = at + n
    return at
  }

  i8 = (): number => this.view.getInt8(this.skip(1))
  i16 = (): number => this.view.getInt16(this.skip(2))
  i32 = (): number => this.view.getInt32(this.skip(4))
  u32 = (): number => this.view.getUint32(this.skip(4))
  i64 = (): bigint => this.view.getBigInt64(this.skip(8))

  /** Up to 32 bits, not negative. */
  uvarint(): number {
    let n = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const b = this.bytes[this.skip(1)]
      n += (b & 0x7f) * 2 ** shift
      if (b < 0x80) {
        if (n >= 2 ** 32) break
        return n
      }
    }
    throw corrupt('a varint is too long')
  }

  varint(): number {
    const n = this.uvarint()
    return n % 2 ? -(n + 1) / 2 : n / 2
  }

  /** Zigzag of 64 bits, as a number: exact up to 2^53, which no time and no delta of a batch goes beyond. */
  varlong(): number {
    let n = 0n
    let small = 0
    for (let shift = 0; shift < 70; shift += 7) {
      const b = this.bytes[this.skip(1)]
      if (shift < 49) small += (b & 0x7f) * 2 ** shift
      else n |= BigInt(b & 0x7f) << BigInt(shift)
      if (b < 0x80) {
        if (shift < 49) return small % 2 ? -(small + 1) / 2 : small / 2
        n = BigInt.asUintN(64, n | BigInt(small))
        return Number((n >> 1n) ^ -(n & 1n))
      }
    }
    throw corrupt('a varint is too long')
  }

  /** A view, not a copy. */
  take(n: number): Uint8Array {
    const at = this.skip(n)
    return this.bytes.subarray(at, at + n)
  }

  /** A count of elements that take at least `min` bytes each. */
  count(n: number, min: number): number {
    if (n < 0 || n * min > this.left) throw corrupt(`${n} elements in ${this.left} bytes`)
    if ((this.elements -= n) < 0) throw new KafkaError(10, 'an answer of too many elements')
    return n
  }

  end(): void {
    if (this.left) throw corrupt(`${this.left} bytes too many`)
  }
}

export class Writer {
  private bytes: Uint8Array
  private view: DataView
  at = 0
  constructor(
    readonly flexible = false,
    size = 256,
  ) {
    this.bytes = new Uint8Array(size)
    this.view = new DataView(this.bytes.buffer)
  }

  private room(n: number): number {
    const at = this.at
    this.at += n
    if (this.at > this.bytes.length) {
      const more = new Uint8Array(Math.max(this.at, this.bytes.length * 2))
      more.set(this.bytes.subarray(0, at))
      this.bytes = more
      this.view = new DataView(more.buffer)
    }
    return at
  }

  i8 = (v: number): void => {
    const at = this.room(1)
    this.view.setInt8(at, v)
  }
  i16 = (v: number): void => {
    const at = this.room(2)
    this.view.setInt16(at, v)
  }
  i32 = (v: number): void => {
    const at = this.room(4)
    this.view.setInt32(at, v)
  }
  i64 = (v: bigint): void => {
    const at = this.room(8)
    this.view.setBigInt64(at, v)
  }

  uvarint(v: number): void {
    for (; v >= 0x80; v = Math.floor(v / 128)) this.i8((v % 128) | 0x80)
    this.i8(v)
  }

  /** Zigzag; exact for whole numbers up to 2^52. */
  varint(v: number): void {
    this.uvarint(v < 0 ? -2 * v - 1 : 2 * v)
  }

  raw(b: Uint8Array): void {
    const at = this.room(b.length)
    this.bytes.set(b, at)
  }

  /** Puts a number where room was left for it. */
  patch(at: number, v: number): void {
    this.view.setInt32(at, v)
  }

  done(): Uint8Array {
    return this.bytes.subarray(0, this.at)
  }
}
