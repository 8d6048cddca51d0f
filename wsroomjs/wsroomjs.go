// Package wsroomjs serves the JavaScript client, so that a page needs neither npm nor a build:
//
//	mux.Handle("GET /js/", wsroomjs.Handler())
//
//	<script type="module">
//	import { Socket } from "/js/wsroom.js"
//	new Socket("/chat/general", { onmessage: (data) => console.log(data) }).open()
//	</script>
//
// The files are those of the npm package @wsroom/client of the same version; wsroom.d.ts documents them.
// request.js adds the messages of package route to it.
package wsroomjs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/wsroom/wsroom/js"
)

// FS has the client, wsroom.js, what sends requests with it, request.js, the types of both, and package.json.
var FS fs.FS = js.Files

const script = "wsroom.js"

// file is one of the files that are served.
type file struct {
	data        []byte
	hash        string
	contentType string
}

var files = map[string]file{
	script:         load(script, javaScript),
	"request.js":   load("request.js", javaScript),
	"wsroom.d.ts":  load("wsroom.d.ts", plainText),
	"request.d.ts": load("request.d.ts", plainText),
}

const (
	javaScript = "text/javascript; charset=utf-8"
	plainText  = "text/plain; charset=utf-8"
)

func load(name, contentType string) file {
	data, err := fs.ReadFile(FS, name)
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(data)
	return file{data, hex.EncodeToString(sum[:8]), contentType}
}

// Path returns the client's file name with a hash of what it holds, such as wsroom.0123456789abcdef.js. Behind the
// path at which [Handler] is mounted, browsers may keep it for ever.
func Path() string { return "wsroom." + files[script].hash + ".js" }

// Handler serves wsroom.js, [Path], request.js and their types at whatever path it is mounted: only the last
// element of the request's path counts. Browsers ask each time whether wsroom.js has changed (ETag), and
// never for [Path]. The path of another version, which a page of another node may name, is served as
// wsroom.js. It answers GET and HEAD.
func Handler() http.Handler { return http.HandlerFunc(serve) }

func serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the client's files can be read only", http.StatusMethodNotAllowed)
		return
	}
	name := path.Base(r.URL.Path)
	cache := "no-cache"
	if name == Path() {
		cache = "public, max-age=31536000, immutable"
	}
	f, ok := files[unhashed(name)]
	if !ok {
		http.NotFound(w, r)
		return
	}

	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("ETag", `"`+f.hash+`"`)
	header.Set("Cache-Control", cache)
	header.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.data))
}

// unhashed returns the name of the client's file for one with a hash of any version.
func unhashed(name string) string {
	hash, isScript := strings.CutSuffix(name, ".js")
	hash, isHashed := strings.CutPrefix(hash, "wsroom.")
	if _, err := hex.DecodeString(hash); isScript && isHashed && err == nil && len(hash) == 2*8 {
		return script
	}
	return name
}
