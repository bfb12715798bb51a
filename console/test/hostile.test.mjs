// A cluster that means no good: names, numbers and answers as they should not be, a topic with a
// hundred thousand partitions, records that cannot be read, and parts that fail one by one. The node
// is a real one, whose answers are replaced on their way to the page.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Browser, Cluster, go, parts as apis } from './harness.mjs'

const { Writer } = apis

let cluster
let browser
before(async () => {
  cluster = await Cluster.start(1)
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

/** An answer of Kafka's. */
function kafka(api, correlation, body) {
  const w = new Writer(!!api.flexible)
  w.i32(0)
  w.i32(correlation)
  if (api.flexible) w.uvarint(0) // tagged fields of the header
  api.response.write(w, body)
  w.patch(0, w.at - 4)
  return Buffer.from(w.done())
}
/** An answer of Trimaran's own. */
function own(correlation, json, code = 0) {
  const head = Buffer.alloc(14)
  head.writeInt32BE(10 + json.length, 0)
  head.writeInt32BE(correlation, 4)
  head.writeInt16BE(code, 8)
  head.writeInt32BE(json.length, 10)
  return Buffer.concat([head, json])
}

/** Replaces answers: by API key, a function of the correlation id and the request. */
async function replace(page, answers) {
  await page.routeWebSocket(/.*/, ws => {
    const server = ws.connectToServer()
    const asked = new Map()
    ws.onMessage(message => {
      asked.set(message.readInt32BE(8), message)
      server.send(message)
    })
    server.onMessage(message => {
      const correlation = message.readInt32BE(4)
      const request = asked.get(correlation)
      asked.delete(correlation)
      const instead = answers[request.readInt16BE(4)]?.(correlation, request)
      ws.send(instead ?? message)
    })
  })
  await page.reload()
}

const evil = '<img src=x onerror=alert(1)>\u202etxt.exe\u0000"\'`;--'
const huge = Number.MAX_SAFE_INTEGER
const metadata = topics => correlation => kafka(apis.Metadata, correlation, { throttleMs: 0, brokers: [{ nodeId: 1, host: evil, port: 1, rack: evil }], clusterId: evil, controllerId: 1, topics })
const topic = (name, partitions, more = {}) => ({
  errorCode: 0, topic: name, topicId: new Uint8Array(16), isInternal: false, authorizedOperations: 0xdf8,
  partitions: Array.from({ length: partitions }, (_, partition) => ({ errorCode: 0, partition, leaderId: 1, leaderEpoch: 1, replicas: [1], isr: [1], offlineReplicas: [] })), ...more,
})
const node = (id, more = {}) => ({ id, client_address: evil, zone: evil, version: evil, alive: true, leaders: huge, replicas: huge, disk_free: huge, disk_total: huge, catalog_role: evil, state: evil, ...more })

test('names, numbers and nulls as they should not be are text', async () => {
  const page = await browser.open(cluster)
  const replica = (node, role) => ({ node, role, applied: huge, lag: -huge, bytes: huge, error: evil, leaving: true, catch_up: { bytes: huge, total: 1, bytes_per_second: -1 } })
  await replace(page, {
    3: metadata([topic(evil, 2), topic('', 0), topic('../../etc', 1), topic('a'.repeat(30_000), 1), topic('constructor', 1), topic('__proto__', 1, { isInternal: true })]),
    16: correlation => kafka(apis.ListGroups, correlation, { throttleMs: 0, errorCode: 0, groups: [{ groupId: evil, protocolType: evil, state: evil }, { groupId: '', protocolType: '', state: '' }, { groupId: '%', protocolType: '', state: '__proto__' }] }),
    21586: correlation => own(correlation, Buffer.from(JSON.stringify({
      cluster_id: evil, controller: evil, confirmed: false, unconfirmed: evil, nodes: [node(evil, { alive: false }), node('"><script>'), node('', { disk_full: true, disk_free: -1 }), node('n'.repeat(5_000))],
      topics: [{ name: evil, replication_factor: -1, partitions: [{ partition: -1, leader: '', term: huge, log_start: huge, high_watermark: -huge, replicas: null }, { partition: 2 ** 31, leader: evil, term: 1, log_start: 0, high_watermark: huge, replicas: ['copying', 'damaged', 'offline', evil].map(r => replica(evil, r)) }] }, { name: '__proto__', replication_factor: 1, partitions: null }],
      group_shards: [{ partition: 0, leader: '', term: 0, log_start: 0, high_watermark: 0, replicas: [replica(evil, 'copying')] }],
    }))),
  })
  for (const hash of ['#/', '#/topics', `#/topics/${encodeURIComponent(evil)}/partitions`, '#/topics/__proto__', '#/topics/..%2F..%2Fetc', '#/groups', `#/groups/${encodeURIComponent(evil)}`, '#/groups/%', '#/nodes', '#/access', '#/%E0%A4%A', '#//////', '#/topics/%00']) {
    await go(page, hash)
    await page.waitForTimeout(500)
    assert.ok((await page.locator('main').textContent()).length > 10, hash)
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    const widest = () => page.evaluate(() => [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll,.rows,svg')).map(e => `${e.tagName}.${e.className}`).slice(-3).join(' '))
    assert.ok(wider <= 0, wider > 0 && `${hash} is ${wider} pixels too wide: ${await widest()}`)
    assert.equal(await page.locator('main img, main script').count(), 0, hash)
    assert.ok(!/[\u202e\u0000]/.test(await page.locator('main').textContent()), hash)
  }
  await browser.close(page)
})

test('answers that are broken are said, and the page goes on', async () => {
  const page = await browser.open(cluster)
  for (const [what, answer] of [
    ['no JSON', c => own(c, Buffer.from('{"nodes": <html>'))], ['null', c => own(c, Buffer.from('null'))], ['a list', c => own(c, Buffer.from('[]'))], ['an error', c => own(c, Buffer.alloc(0), 31)],
    ['a code that nobody knows', c => own(c, Buffer.alloc(0), 12345)], ['a length beyond the end', c => own(c, Buffer.from('{}')).fill(0x7f, 10, 12)],
  ]) {
    await replace(page, { 21586: answer })
    await page.getByRole('alert').first().waitFor({ timeout: 15_000 }).catch(e => { throw new Error(`${what}: ${e.message}`) })
    // What does not need it is there.
    await go(page, '#/topics')
    await page.getByText('No topics yet').waitFor()
    await go(page, '#/')
    await page.unrouteAll?.()
  }
  await browser.close(page)
})

test('each part fails alone', async () => {
  await cluster.trimaran(['topic', 'create', 'parts', '--partitions', '2', '--replication-factor', '1'])
  await cluster.trimaran(['produce', 'parts'], 'one\ntwo\n')
  await cluster.trimaran(['consume', 'parts', '--group', 'readers', '--max-messages', '1'])
  const failing = api => correlation => {
    const key = api.key
    if (key === 32) return kafka(api, correlation, { throttleMs: 0, resources: [{ errorCode: 29, errorMessage: 'not for you', resourceType: 2, resourceName: 'parts', configs: [] }] })
    if (key === 16) return kafka(api, correlation, { throttleMs: 0, errorCode: 15, groups: [] })
    if (key === 9) return kafka(api, correlation, { throttleMs: 0, topics: [], errorCode: 30 })
    return kafka(api, correlation, { throttleMs: 0, errorCode: 31, errorMessage: null, results: [] })
  }
  for (const [what, answers, checks] of [
    ['the status', { 21586: c => own(c, Buffer.alloc(0), 31) }, { '#/topics/parts/partitions': 'alert', '#/nodes': 'alert', '#/': 'alert', '#/topics': 'parts', '#/topics/parts': 'two', '#/topics/parts/configuration': 'retention.ms', '#/groups': 'readers' }],
    ['configurations', { 32: failing(apis.DescribeConfigs) }, { '#/topics/parts/configuration': 'alert', '#/topics/parts': 'two', '#/topics/parts/partitions': 'leads' }],
    ['the list of groups', { 16: c => kafka(apis.ListGroups, c, { throttleMs: 0, errorCode: 31, groups: [] }) }, { '#/groups': 'alert', '#/groups/readers': 'Committed', '#/topics/parts': 'two' }],
    ['offsets', { 9: failing(apis.OffsetFetch) }, { '#/groups/readers': 'alert', '#/groups': 'readers' }],
    ['users', { 50: failing(apis.DescribeUserScramCredentials) }, { '#/access': 'alert', '#/access/rights': 'judges no rights' }],
    ['ListOffsets', { 2: c => kafka(apis.ListOffsets, c, { throttleMs: 0, topics: [{ topic: 'parts', partitions: [{ partition: 0, errorCode: 29, timestamp: -1n, offset: -1n, leaderEpoch: -1 }, { partition: 1, errorCode: 29, timestamp: -1n, offset: -1n, leaderEpoch: -1 }] }] }) }, { '#/topics/parts': 'alert', '#/topics/parts?from=live': 'alert', '#/topics/parts/partitions': 'leads', '#/groups/readers': 'Nothing can be learned of parts' }],
  ]) {
    const page = await browser.open(cluster)
    await replace(page, answers)
    for (const [hash, want] of Object.entries(checks)) {
      await go(page, hash)
      const there = want === 'alert' ? page.getByRole('alert') : page.locator('main', { hasText: want })
      await there.first().waitFor({ timeout: 20_000 }).catch(e => { throw new Error(`without ${what}, ${hash}: ${e.message}`) })
    }
    await browser.close(page)
  }
})

test('records that cannot be read are said, with those that can', async () => {
  const page = await browser.open(cluster)
  await replace(page, {
    1: (correlation, request) => {
      const fetch = apis.Fetch
      const broken = Buffer.alloc(80, 0xff)
      return kafka(fetch, correlation, { throttleMs: 0, errorCode: 0, sessionId: 0, topics: [{ topic: 'parts', partitions: [0, 1].map(partition => ({ partition, errorCode: 0, highWatermark: 2n, lastStableOffset: 2n, logStartOffset: 0n, abortedTransactions: null, preferredReadReplica: -1, records: broken })) }] })
    },
  })
  for (const hash of ['#/topics/parts', '#/topics/parts?from=live', '#/topics/parts?from=earliest']) {
    await go(page, hash)
    await page.getByRole('alert').first().waitFor({ timeout: 20_000 }).catch(e => { throw new Error(`${hash}: ${e.message}`) })
  }
  await go(page, '#/topics/parts/partitions')
  await page.getByText('leads').first().waitFor()
  await browser.close(page)
})

test('a topic with 100,000 partitions: each of its pages is there within some seconds and answers', async () => {
  const many = 100_000
  const page = await browser.open(cluster)
  const partition = partition => ({ partition, leader: 'n1', term: 1, log_start: 0, high_watermark: 5, replicas: [{ node: 'n1', role: 'leader', applied: 5, lag: 0, bytes: 100 }] })
  const status = Buffer.from(JSON.stringify({ cluster_id: 'x', controller: 'n1', confirmed: true, nodes: [node('n1', { state: '' })], topics: [{ name: 'wide', replication_factor: 1, partitions: Array.from({ length: many }, (_, i) => partition(i)) }] }))
  const body = metadata([topic('wide', many)])(0)
  await replace(page, {
    3: correlation => (body.writeInt32BE(correlation, 4), Buffer.from(body)),
    21586: correlation => own(correlation, status),
  })
  for (const [hash, text] of [['#/', 'wide'], ['#/topics', 'wide'], ['#/topics/wide/partitions', '500 more of 99,500'], ['#/topics/wide?from=offset&at=0&partition=77777', '100,000 partitions'], ['#/nodes', 'n1']]) {
    await go(page, hash)
    await page.locator('main', { hasText: text }).first().waitFor({ timeout: 20_000 })
    const [elements, wait] = await page.evaluate(async () => {
      let longest = 0
      for (let i = 0; i < 30; i++) {
        const began = performance.now()
        await new Promise(done => setTimeout(done, 50))
        longest = Math.max(longest, performance.now() - began - 50)
      }
      return [document.querySelectorAll('*').length, Math.round(longest)]
    })
    console.log(`# ${hash}: ${elements} elements, longest wait ${wait} ms`)
    assert.ok(elements < 12_000, `${hash}: ${elements} elements`)
    assert.ok(wait < 3_000, `${hash}: ${wait} ms`)
  }
  await browser.close(page)
})
