// Builds dist: minified ES modules for the client, groups and administration, what they share, what is loaded when it
// is needed (zstd, SASL, hashes), and the type declarations.
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))
rmSync('dist', { recursive: true, force: true })
await build({
  entryPoints: ['src/index.ts', 'src/group.ts', 'src/admin.ts'],
  outdir: 'dist',
  bundle: true,
  splitting: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  chunkNames: '[name]-[hash]',
  logLevel: 'warning',
})
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.types.json'], { stdio: 'inherit' })
