// Package js holds the files of the npm package @wsroom/client. Package wsroomjs serves them.
package js

import "embed"

// Files are the client, its types and its version.
//
//go:embed wsroom.js wsroom.d.ts package.json
var Files embed.FS
