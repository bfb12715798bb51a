// Messages of transactions: what was committed, aborted, and is not decided yet, with and without the switch.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Browser, Cluster, Transactions, go, until } from './harness.mjs'

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

const values = page => page.locator('.rows .body .row .value').allTextContents()

test('markers are no messages, and "read committed" leaves out what was aborted and what is not decided', async () => {
  await cluster.trimaran(['topic', 'create', 'ledger', '--partitions', '1', '--replication-factor', '1'])
  const plain = value => cluster.trimaran(['produce', 'ledger'], value + '\n')
  const t = await Transactions.start(cluster.ports[0], 'teller')
  await plain('plain 0') // offset 0
  await t.write('ledger', 0, ['committed 1', 'committed 2'])
  await t.end(true) // the marker is 3
  await t.write('ledger', 0, ['aborted 4'])
  await t.end(false) // 5
  await until(async () => (await cluster.trimaran(['transaction', 'list'])).includes('CompleteAbort'))
  await plain('plain 6')
  await t.write('ledger', 0, ['open 7'])
  await plain('plain 8, behind it')

  const all = ['plain 0', 'committed 1', 'committed 2', 'aborted 4', 'plain 6', 'open 7', 'plain 8, behind it']
  const committed = ['plain 0', 'committed 1', 'committed 2', 'plain 6']
  const page = await browser.open(cluster, { hash: '#/topics/ledger?from=earliest' })
  const shows = async wanted => until(async () => JSON.stringify(await values(page)) === JSON.stringify(wanted)).catch(async e => assert.deepEqual(await values(page), wanted, e))
  await shows(all)
  const isolation = page.getByLabel('Of transactions')
  await isolation.selectOption('read_committed')
  await shows(committed)
  await page.getByText('2 more wait for transactions that are not decided').waitFor()
  assert.ok((await page.evaluate(() => location.hash)).includes('isolation=read_committed'))
  await page.getByRole('button', { name: 'Newest' }).click()
  await shows([...committed].reverse())
  await isolation.selectOption('read_uncommitted')
  await shows([...all].reverse())
  // From within a transaction that was aborted.
  await go(page, '#/topics/ledger?from=offset&at=4&isolation=read_committed')
  await shows(['plain 6'])

  // What waits comes when the transaction is decided, and not before.
  await go(page, '#/topics/ledger?from=live&isolation=read_committed')
  await page.getByText('Waiting for messages').waitFor()
  const other = await browser.open(cluster, { hash: '#/topics/ledger?from=live' })
  await other.getByText('Waiting for messages').waitFor()
  await until(async () => {
    await plain('plain again')
    return (await other.locator('.rows .body .row').count()) > 0
  })
  assert.deepEqual(await values(page), [])
  await t.end(true)
  await until(async () => (await values(page)).at(-1) === 'open 7')
  assert.deepEqual((await values(page)).slice(-2), ['plain 8, behind it', 'open 7'])
  await until(async () => (await values(page))[0] === 'plain again')
  t.close()
  await browser.close(other)
  await browser.close(page)
})
