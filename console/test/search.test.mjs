import assert from 'node:assert/strict'
import { test } from 'node:test'
import { build } from 'esbuild'

const bundle = await build({
  stdin: { contents: "export { matcher } from './read.js'; export { csv, jsonLine } from './export.js'; export * from './format.js'", resolveDir: new URL('../src', import.meta.url).pathname },
  bundle: true, write: false, format: 'esm', tsconfig: new URL('../tsconfig.json', import.meta.url).pathname,
})
// The modules ask the page where they are.
globalThis.location = { protocol: 'http:', host: '127.0.0.1:1', hash: '' }
globalThis.addEventListener = () => {}
globalThis.WebSocket = class {}
const { matcher, csv, jsonLine, cut, shown, preview, text, short, unhex } = await import('data:text/javascript;base64,' + Buffer.from(bundle.outputFiles[0].contents).toString('base64'))

const encode = s => new TextEncoder().encode(s)
const record = (key, value, headers = []) => ({ topic: 't', partition: 0, offset: 1n, timestamp: 5, key: key === null ? null : encode(key), value: value === null ? null : typeof value === 'string' ? encode(value) : value, headers })

test('what is searched for', () => {
  const r = record('user-7', '{"customer":{"tier":"gold","Name":"Ada L"},"total":12.5,"items":[{"sku":"A/1"}],"paid":true,"none":null}', [{ key: 'trace', value: encode('abc') }])
  for (const [query, want] of Object.entries({
    'gold': true, 'GOLD ada': true, 'gold silver': false, 'key:user': true, 'key:gold': false, 'value:gold': true, 'header:trace': true, 'header:abc': true, 'header:gold': false, 'trace': true,
    '"Ada L"': true, '"L Ada"': false, '/tier":"g.ld/': true, '/TIER/': false, '/TIER/i': true, 'key:/^user-\\d$/': true, 'value:/^user/': false, '/a b/': false,
    '.customer.tier=gold': true, '.customer.tier=silver': false, '.customer.tier!=silver': true, '.customer.Name="Ada L"': true, '.total>12': true, '.total>100': false, '.total<=12.5': true, '.items.0.sku=A/1': true,
    '.paid=true': true, '.none=null': true, '.nothing=1': false, '.customer=x': false, '.__proto__.x=1': false, '.total>9 gold': true,
  })) assert.equal(matcher(query)(r), want, query)
  assert.equal(matcher(''), undefined)
  assert.equal(matcher('   '), undefined)
  assert.throws(() => matcher('/(/'), SyntaxError)
  assert.equal(matcher('deadbeef')(record(null, Uint8Array.of(0xde, 0xad, 0xbe, 0xef))), true)
  assert.equal(matcher('x')(record(null, null)), false)
})

test('text that plays tricks is shown as what it is', () => {
  assert.equal(shown('a\u202eb\u0000c\u200b'), 'a‹202e›b␀c‹200b›')
  assert.equal(shown('a\nb', true), 'a\nb')
  assert.equal(preview(encode('line\nbreak')), 'line␊break')
  assert.equal(preview(Uint8Array.of(0xff, 0xfe)), 'fffe')
  assert.equal(preview(encode('é'.repeat(1000)), 200), 'é'.repeat(200) + '…')
  assert.equal(text(Uint8Array.of(0xc3)), undefined)
  for (let most = 1; most < 12; most++) assert.ok('aé€𝄞é'.startsWith(text(cut(encode('aé€𝄞é'), most))), `cut at ${most}`)
  assert.equal(matcher('ö')(record(null, 'x'.repeat((1 << 16) - 3) + 'öéé')), true)
  assert.deepEqual([...unhex('0a FF')], [10, 255])
  assert.equal(unhex('0x'), undefined)
  assert.deepEqual([short(0), short(9.44), short(999), short(1000), short(123456), short(99950)], ['0', '9.4', '999', '1.00k', '123k', '100k'])
})

test('exports say what is binary, and no cell is a formula', () => {
  const r = record('=1+1', Uint8Array.of(0xff, 0), [{ key: 'h', value: null }])
  assert.deepEqual(JSON.parse(jsonLine(r)), { topic: 't', partition: 0, offset: '1', timestamp: 5, key: '=1+1', value: null, value_hex: 'ff00', headers: [{ key: 'h', value: null }] })
  assert.equal(csv([r]).split('\r\n')[1], '0,1,5,"\'=1+1","0xff00","h="')
})
