// Prints the Khronos validator's report on each GLB given as an argument, one JSON object per line.
import { readFile } from "node:fs/promises";
import validator from "gltf-validator";

for (const path of process.argv.slice(2)) {
  const bytes = new Uint8Array(await readFile(path));
  const report = await validator.validateBytes(bytes, { uri: path, maxIssues: 100 });
  console.log(JSON.stringify({ ...report.issues, info: report.info }));
}
