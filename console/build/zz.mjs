import { chromium } from 'playwright-core'
import { readdirSync } from 'node:fs'
const b = await chromium.launch({executablePath:'/usr/bin/chromium',args:['--no-sandbox','--allow-file-access-from-files']})
const dir='/work/wt/cons/console/build/shots/'
const [,, out, width, ...files] = process.argv
const p = await b.newPage({viewport:{width:1600,height:1000}})
const fs = await import('node:fs')
const html = `<body style="margin:0;background:#888;display:flex;flex-wrap:wrap;gap:8px">${files.map(f=>`<figure style="margin:0"><figcaption style="font:12px sans-serif">${f}</figcaption><img width=${width} src="file://${dir}${f}.png"></figure>`).join('')}`
fs.writeFileSync('/tmp/sheet.html', html)
await p.goto('file:///tmp/sheet.html')
await p.waitForTimeout(500)
await p.screenshot({path:out, fullPage:true})
await b.close()
