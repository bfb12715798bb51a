// A node is taken out of a cluster of four, and its replicas are seen to move.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Browser, Cluster, Wire, audit, go, parts, until } from './harness.mjs'

let cluster
let browser
before(async () => {
  cluster = await Cluster.start(4, '--catch-up-rate', '4MiB')
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

test('a node is decommissioned: its replicas are copied, with progress, and it is gone', async () => {
  await cluster.trimaran(['topic', 'create', 'freight', '--partitions', '4', '--replication-factor', '3'])
  // What is in the log's last 1,024 entries, or 64 MiB, Raft brings at once. What is older is copied.
  const before = JSON.parse(await cluster.trimaran(['cluster', 'status', '--json'])).topics[0].partitions
  const heavy = before.find(p => p.replicas.some(r => r.node === 'n4')).partition
  const wire = new Wire(cluster.ports[0])
  const batch = Buffer.from(await parts.encodeBatch([{ value: 'x'.repeat(60_000) }]))
  for (let i = 0; i < 1_300; i++) await wire.produce('freight', heavy, batch)
  wire.close()
  const page = await browser.open(cluster, { hash: '#/nodes' })
  await page.getByText('4 of 4 nodes there').waitFor()
  await page.getByText('Every replica is where it should be').waitFor({ timeout: 60_000 })
  const card = id => page.locator('.cards .panel', { has: page.getByRole('heading', { name: id }) })
  await until(async () => Number(/of (\d+) replica/.exec(await card('n4').textContent())?.[1]) > 0)
  await card('n4').getByRole('button', { name: 'Decommission' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Type the name').fill('n')
  assert.ok(await dialog.getByRole('button', { name: 'Decommission' }).isDisabled())
  await dialog.getByLabel('Type the name').fill('n4')
  await dialog.getByRole('button', { name: 'Decommission' }).click()
  await card('n4').getByText('leaving').waitFor()
  // Progress of a copy is a number that grows.
  const moves = page.locator('.panel', { has: page.getByRole('heading', { name: 'Moves' }) })
  const seen = new Set()
  let most = 0
  await until(async () => {
    const bars = await moves.locator('progress').evaluateAll(all => all.map(p => [p.closest('tr').firstElementChild.textContent.trim(), p.value, p.max]))
    for (const [what, value, max] of bars) {
      assert.ok(value >= 0 && value <= max, `${what}: ${value} of ${max}`)
      if (value > 0 && value < max) seen.add(`${what} ${value}`)
    }
    most = Math.max(most, bars.length)
    return seen.size >= 2
  }, 60_000)
  await audit(page, 'moves')
  await page.setViewportSize({ width: 360, height: 720 })
  await audit(page, 'moves at 360 pixels')
  await page.setViewportSize({ width: 1280, height: 860 })
  await go(page, '#/')
  await page.getByText('Node n4 is leaving').waitFor()
  await go(page, '#/nodes')
  await page.getByText('3 of 3 nodes there').waitFor({ timeout: 120_000 })
  assert.equal(await card('n4').count(), 0)
  await page.getByText('Every replica is where it should be').waitFor({ timeout: 60_000 })
  console.log(`# ${most} copies at once, ${seen.size} states of progress seen`)
  // All that it had is elsewhere.
  const status = JSON.parse(await cluster.trimaran(['cluster', 'status', '--json']))
  const replicas = status.topics.find(t => t.name === 'freight').partitions.flatMap(p => p.replicas.map(r => r.node))
  assert.deepEqual([replicas.length, replicas.includes('n4')], [12, false])
  await browser.close(page)
})
