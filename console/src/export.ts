// What is listed, as a file.
import { hexOf, text } from './format.js'
import type { Message } from './read.js'

/** Text where it is, else hexadecimal digits, and which of the two. */
function field(b: Uint8Array | null): { text: string | null; hex?: string } {
  if (!b) return { text: null }
  const s = text(b)
  return s === undefined ? { text: null, hex: hexOf(b) } : { text: s }
}

export function jsonLine(m: Message): string {
  const key = field(m.key)
  const value = field(m.value)
  return JSON.stringify({
    topic: m.topic, partition: m.partition, offset: String(m.offset), timestamp: m.timestamp,
    key: key.text, key_hex: key.hex, value: value.text, value_hex: value.hex,
    headers: m.headers.map(h => ({ key: h.key, value: field(h.value).text, value_hex: field(h.value).hex })),
  })
}

// A spreadsheet takes a cell that begins like a formula for one.
const cell = (s: string): string => `"${(/^[=+\-@\t\r]/.test(s) ? "'" + s : s).replace(/"/g, '""')}"`

export function csv(list: Message[]): string {
  const shape = (b: Uint8Array | null): string => (b ? text(b) ?? '0x' + hexOf(b) : '')
  const lines = list.map(m => [
    m.partition, m.offset, m.timestamp, cell(shape(m.key)), m.value ? cell(shape(m.value)) : '',
    cell(m.headers.map(h => `${h.key}=${shape(h.value)}`).join('; ')),
  ].join(','))
  return ['partition,offset,timestamp,key,value,headers', ...lines].join('\r\n') + '\r\n'
}

export function exportAs(how: 'jsonl' | 'csv', topic: string, list: Message[]): void {
  const body = how === 'csv' ? csv(list) : list.map(m => jsonLine(m) + '\n').join('')
  const url = URL.createObjectURL(new Blob([body], { type: 'application/octet-stream' }))
  const a = document.createElement('a')
  a.href = url
  a.download = `${topic.replace(/[^a-zA-Z0-9._-]/g, '_')}.${how}`
  a.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
