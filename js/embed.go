// Package js holds the files of the npm package @wsroom/client. Package wsroomjs serves them.
package js

import "embed"

// Files are the client, what sends requests with it, the types of both, and their version.
//
//go:embed wsroom.js wsroom.d.ts request.js request.d.ts package.json
var Files embed.FS
