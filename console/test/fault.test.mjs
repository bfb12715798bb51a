// The page outlives the node that it came from.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Browser, Cluster, until } from './harness.mjs'

let cluster
let browser
before(async () => {
  cluster = await Cluster.start(3)
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

test('the node of the page is killed: the tail misses nothing, and the overview says it', async () => {
  await cluster.trimaran(['topic', 'create', 'ticks', '--partitions', '1', '--replication-factor', '3'])
  const page = await browser.open(cluster, { hash: '#/topics/ticks?from=live' })
  await page.getByText('Waiting for messages').waitFor()
  await page.waitForTimeout(500) // the tail asks where the end is
  const others = { brokers: cluster.ports.slice(1).map(p => `127.0.0.1:${p}`).join(',') }
  const write = (from, to) => Cluster.prototype.trimaran.call(others, ['produce', 'ticks'], Array.from({ length: to - from }, (_, i) => `tick ${from + i}\n`).join(''))
  await write(0, 100)
  await page.getByText('100 messages came').waitFor()
  cluster.kill(0)
  const killed = Date.now()
  await write(100, 200)
  await page.getByText('200 messages came').waitFor({ timeout: 20_000 })
  console.log(`# the tail went on ${Date.now() - killed} ms after the kill`)
  assert.equal(await page.locator('.rows .body .row').first().textContent().then(t => t.endsWith('tick 199')), true)
  await page.getByRole('link', { name: /Overview/ }).click()
  await page.getByText('Node n1 does not answer').waitFor()
  await page.getByRole('heading', { name: /n1 does not answer; two hulls carry on/ }).waitFor()
  await until(async () => /^n[23]$/.test((await page.locator('.connection .where').textContent()) ?? ''))
  // What was not looked at yet is there, too.
  await page.getByRole('link', { name: 'Groups' }).click()
  await page.getByRole('heading', { name: 'Groups' }).waitFor()
  cluster.run(0)
  await page.getByRole('link', { name: /Overview/ }).click()
  await page.getByRole('heading', { name: 'Three hulls, one boat' }).waitFor({ timeout: 60_000 })
  await browser.close(page)
})
