import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'

const dist = new URL('../dist/', import.meta.url)

test('what is loaded first is at most 90 KB, 35 KB of them compressed', () => {
  const html = readFileSync(new URL('index.html', dist), 'utf8')
  const files = new Map()
  const add = name => {
    if (files.has(name)) return
    const content = readFileSync(new URL(name, dist))
    files.set(name, content)
    // Only what a module imports statically: the rest comes when it is gone to.
    for (const [, next] of content.toString().matchAll(/(?:from|import)"\.\/([^"]+)"/g)) add(next)
  }
  for (const [, name] of html.matchAll(/"\/console\/([^"]+\.(?:js|css))"/g)) add(name)
  const plain = [...files.values()].reduce((n, c) => n + c.length, 0)
  const zipped = [...files.values()].reduce((n, c) => n + gzipSync(c, { level: 9 }).length, 0)
  console.log(`# ${files.size} files, ${plain} bytes, ${zipped} compressed`)
  assert.ok(files.size > 2, 'the page loads more than that')
  assert.ok(plain <= 90_000, `${plain} bytes`)
  assert.ok(zipped <= 35_000, `${zipped} bytes compressed`)
})
