// What is shown, as text. Whatever comes from the cluster goes through `shown` or `preview`.

const number = new Intl.NumberFormat('en')
export const count = (n: number | bigint): string => number.format(n)

/** 12.3k, 4.56M: three digits. */
export function short(n: number): string {
  if (!Number.isFinite(n)) return '–'
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]] as const) {
    if (Math.abs(n) >= size * 0.9995) return digits(n / size) + unit
  }
  return n !== 0 && Math.abs(n) < 10 ? String(Math.round(n * 10) / 10) : String(Math.round(n))
}
const digits = (n: number): string => n.toFixed(Math.abs(n) >= 99.95 ? 0 : Math.abs(n) >= 9.995 ? 1 : 2)

export function bytes(n: number): string {
  if (!Number.isFinite(n)) return '–'
  for (const [unit, size] of [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 1024]] as const) {
    if (Math.abs(n) >= size * 0.9995) return `${digits(n / size)} ${unit}`
  }
  return `${Math.round(n)} B`
}

const two = (n: number): string => String(n).padStart(2, '0')
/** 2026-11-30 02:10:44.123, in the reader's time zone. */
export function time(ms: number): string {
  if (ms < 0) return 'no time'
  const d = new Date(ms)
  if (Number.isNaN(d.getTime())) return String(ms)
  const day = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`
  return `${day} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`
}

/** What a field of type datetime-local takes. */
export const localTime = (ms: number): string => time(ms).replace(' ', 'T').slice(0, 19)

export const duration = (ms: number): string =>
  ms >= 864e5 ? `${+(ms / 864e5).toFixed(1)} ${ms === 864e5 ? 'day' : 'days'}` : ms >= 36e5 ? `${+(ms / 36e5).toFixed(1)} h`
    : ms >= 6e4 ? `${+(ms / 6e4).toFixed(1)} min` : ms >= 1e3 ? `${+(ms / 1e3).toFixed(1)} s` : `${ms} ms`

export const plural = (n: number, one: string, many = one + 's'): string => `${count(n)} ${n === 1 ? one : many}`

/**
 * Text that cannot play tricks: control characters and those that turn the direction of writing
 * are shown as what they are. Line ends and tabs stay where `lines` says so.
 */
export function shown(s: string, lines = false): string {
  return s.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g, c => {
    const code = c.charCodeAt(0)
    if (lines && (code === 10 || code === 9 || code === 13)) return c
    if (code < 32) return String.fromCharCode(0x2400 + code)
    return `‹${code.toString(16).padStart(4, '0')}›`
  })
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
/** The bytes as text, or nothing if they are none. */
export function text(b: Uint8Array): string | undefined {
  try {
    const s = utf8.decode(b)
    return /[\u0000-\u0008\u000e-\u001f]/.test(s) ? undefined : s
  } catch {
    return undefined
  }
}

/** A number of JSON as it is written, where JavaScript would round it. */
export class Exact {
  constructor(readonly source: string) {}
}

/** The JSON that text is, or nothing if it is none. */
export function parseJson(s: string): { json: unknown } | undefined {
  if (!/^\s*[[{]/.test(s)) return undefined
  try {
    // Browsers that do not give the source show the rounded number.
    const exact = (_: string, v: unknown, c?: { source?: string }): unknown =>
      typeof v === 'number' && !Number.isSafeInteger(v) && c?.source && /^-?\d+$/.test(c.source) ? new Exact(c.source) : v
    return { json: JSON.parse(s, exact as (key: string, v: unknown) => unknown) }
  } catch {
    return undefined
  }
}

export const hexOf = (b: Uint8Array): string => Array.from(b, x => x.toString(16).padStart(2, '0')).join('')

/** Bytes from hexadecimal digits, with spaces between them or not. */
export function unhex(s: string): Uint8Array | undefined {
  const digits = s.replace(/\s+/g, '')
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits)) return undefined
  return Uint8Array.from(digits.match(/../g) ?? [], d => parseInt(d, 16))
}

/** At most so many bytes, with no character cut in two. */
export function cut(b: Uint8Array, most: number): Uint8Array {
  if (b.length <= most) return b
  let end = most
  while (end > most - 4 && (b[end] & 0xc0) === 0x80) end--
  return b.subarray(0, end)
}

/** One line of at most so many characters. */
export function preview(b: Uint8Array | null, most = 200): string {
  if (!b) return ''
  const s = text(cut(b, most * 4))
  if (s === undefined) return `${hexOf(b.subarray(0, Math.min(most / 2, 48)))}${b.length > 48 ? '…' : ''}`
  return shown(s.length > most ? s.slice(0, most) + '…' : s)
}

/** Lines of a hex dump: offset, bytes, characters. */
export function dump(b: Uint8Array): string {
  const lines: string[] = []
  for (let at = 0; at < b.length; at += 16) {
    const row = b.subarray(at, at + 16)
    const hex = Array.from(row, x => x.toString(16).padStart(2, '0')).join(' ').padEnd(47)
    const chars = Array.from(row, x => (x > 31 && x < 127 ? String.fromCharCode(x) : '·')).join('')
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex}  ${chars}`)
  }
  return lines.join('\n')
}
