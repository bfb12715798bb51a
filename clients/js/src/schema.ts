// Codecs that are put together from smaller ones, so that a message of Kafka's is a declaration and its TypeScript
// type follows from it.
import { decode, encode, type Reader, type Writer } from './bytes.js'
import { corrupt } from './errors.js'

export interface Codec<T> {
  /** No value takes fewer bytes, flexible or not: bounds what a count can ask for. */
  min: number
  read(r: Reader): T
  write(w: Writer, v: T): void
}
export type Of<C> = C extends Codec<infer T> ? T : never

const make = <T>(min: number, read: (r: Reader) => T, write: (w: Writer, v: T) => void): Codec<T> => ({ min, read, write })

export const i8 = make(1, r => r.i8(), (w, v) => w.i8(v))
export const i16 = make(2, r => r.i16(), (w, v) => w.i16(v))
export const i32 = make(4, r => r.i32(), (w, v) => w.i32(v))
export const i64 = make(8, r => r.i64(), (w, v) => w.i64(v))
export const bool = make(1, r => r.i8() !== 0, (w, v) => w.i8(v ? 1 : 0))
export const uuid = make(16, r => r.take(16), (w, v) => w.raw(v))

// Lengths: -1 is null. Compact ones are one more, so that null is 0.
const length = (r: Reader, short?: boolean): number => (r.flexible ? r.uvarint() - 1 : short ? r.i16() : r.i32())
const putLength = (w: Writer, n: number, short?: boolean): void => {
  if (w.flexible) w.uvarint(n + 1)
  else if (short) w.i16(n)
  else w.i32(n)
}

const orNull = <T>(
  min: number,
  short: boolean,
  read: (r: Reader, n: number) => T,
  write: (w: Writer, v: T) => void,
): Codec<T | null> =>
  make(
    min,
    r => {
      const n = length(r, short)
      if (n < -1) throw corrupt('a negative length')
      return n < 0 ? null : read(r, n)
    },
    (w, v) => (v === null ? putLength(w, -1, short) : write(w, v)),
  )

const never = <T>(c: Codec<T | null>): Codec<T> =>
  make(
    c.min,
    r => {
      const v = c.read(r)
      if (v === null) throw corrupt('null where there must be a value')
      return v
    },
    c.write,
  )

export const nullableStr = orNull(1, true, (r, n) => decode(r.take(n)), (w, v: string) => {
  const b = encode(v)
  putLength(w, b.length, true)
  w.raw(b)
})
export const str = never(nullableStr)
export const nullableBytes = orNull(1, false, (r, n) => r.take(n), (w, v: Uint8Array) => {
  putLength(w, v.length)
  w.raw(v)
})
export const bytes = never(nullableBytes)

export const nullableArr = <T>(c: Codec<T>): Codec<T[] | null> =>
  orNull(
    1,
    false,
    (r, n) => {
      const all: T[] = []
      for (r.count(n, c.min); n > 0; n--) all.push(c.read(r))
      return all
    },
    (w, v: T[]) => {
      putLength(w, v.length)
      for (const e of v) c.write(w, e)
    },
  )
export const arr = <T>(c: Codec<T>): Codec<T[]> => never(nullableArr(c))

type Fields = Record<string, Codec<any>>
type Values<F extends Fields> = { [K in keyof F]: Of<F[K]> }
/** What came in tagged fields, unread. */
export type Tags = [tag: number, value: Uint8Array][]

export const tags: Codec<Tags> = make(
  0,
  r => {
    const all: Tags = []
    if (r.flexible) {
      const n = r.count(r.uvarint(), 2)
      for (let i = 0; i < n; i++) all.push([r.uvarint(), r.take(r.uvarint())])
    }
    return all
  },
  (w, v) => {
    if (!w.flexible) return
    w.uvarint(v.length)
    for (const [tag, value] of v) {
      w.uvarint(tag)
      w.uvarint(value.length)
      w.raw(value)
    }
  },
)

export const obj = <F extends Fields>(fields: F): Codec<Values<F> & { tags?: Tags }> => {
  const all = Object.entries(fields)
  return make(
    all.reduce((n, [, c]) => n + c.min, 0),
    r => {
      const v: Record<string, unknown> = {}
      for (const [name, c] of all) v[name] = c.read(r)
      const more = tags.read(r)
      if (more.length) v.tags = more
      return v as Values<F>
    },
    (w, v) => {
      for (const [name, c] of all) c.write(w, v[name])
      tags.write(w, v.tags ?? [])
    },
  )
}

/** One API in one version. */
export interface Api<Q = unknown, A = unknown> {
  key: number
  version: number
  flexible: boolean
  request: Codec<Q>
  response: Codec<A>
}

export const api = <Q, A>(key: number, version: number, flexible: number, request: Codec<Q>, response: Codec<A>): Api<Q, A> => ({
  key,
  version,
  flexible: !!flexible,
  request,
  response,
})
