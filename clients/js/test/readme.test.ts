import assert from 'node:assert/strict'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Cluster, wsConstructor } from './cluster.js'

const root = new URL('../../', import.meta.url)

test('the chat room of the README is 40 lines and works', async () => {
  const code = /```js\n([^]*?)```/.exec(readFileSync(new URL('README.md', root), 'utf8'))![1]
  assert.ok(code.trim().split('\n').length <= 40, `${code.trim().split('\n').length} lines`)
  // In this package's folder its own name leads to dist.
  const file = new URL('build/chat.mjs', root)
  writeFileSync(file, code)
  const { ChatRoom } = await import(file.href)
  const cluster = await Cluster.start(1)
  try {
    const options = { gateways: [cluster.gateway(0)], WebSocket: wsConstructor }
    const [ada, bob] = ['ada', 'bob'].map(name => new ChatRoom(options, 'lobby', name))
    await ada.enter()
    await bob.enter()
    await ada.say('hello')
    const heard: string[] = []
    for await (const m of bob.messages()) {
      heard.push(`${m.from}: ${m.text}`)
      if (heard.length === 1) await bob.say('hello, ada')
      if (heard.length === 2) break
    }
    assert.deepEqual(heard, ['ada: hello', 'bob: hello, ada'])
    ada.leave()
    bob.leave()
  } finally {
    await cluster.end()
  }
})

test('what a page loads at first is at most 30 KB', () => {
  const size = (name: string, seen: Set<string>): number => {
    if (seen.has(name)) return 0
    seen.add(name)
    const file = new URL(`dist/${name}`, root)
    const code = readFileSync(file, 'utf8')
    return [...code.matchAll(/from"\.\/([^"]+)"/g)].reduce((n, m) => n + size(m[1], seen), statSync(file).size)
  }
  const seen = new Set<string>()
  const first = size('index.js', seen)
  const group = size('group.js', seen)
  const admin = size('admin.js', seen)
  console.log(`# dist: client ${first}, groups ${group} more, administration ${admin} more bytes`)
  assert.ok(first <= 30_000, `${first} bytes`)
})
