// Holds a kernel to the float32 and float64 vectors:
//
//     node check.mjs kernel.mjs FILE.safetensors ...
//
// One line for each result that is wrong; exit code 1 if there is any, 2 if no file
// was checked.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { failures, geometry, parse } from "./refdcn_vectors.mjs";

const [kernel, ...paths] = process.argv.slice(2);
const { deformConv2d } = await import(pathToFileURL(resolve(kernel)));
let checked = 0, bad = 0;
for (const path of paths) {
  const arrays = parse(readFileSync(path));
  if (arrays.x.data === null) continue; // float16
  const wrong = failures(arrays, "y", deformConv2d(arrays, geometry(arrays)));
  if (wrong) console.log(`${path}: y: ${wrong} of ${arrays.y.data.length} are wrong`);
  bad += wrong > 0;
  checked++;
}
console.log(`${checked} files checked, ${bad} results wrong`);
process.exitCode = bad ? 1 : checked ? 0 : 2;
