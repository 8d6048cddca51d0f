package request

import (
	"context"
	"reflect"
)

// bare returns the context below those of package context that can only be cancelled. It has the same values. The
// request of a server of net/http has two of them, which would take 270 bytes for as long as a connection lasts.
func bare(ctx context.Context) context.Context {
	for {
		outer, ok := outerOf(ctx)
		if !ok {
			return ctx
		}
		ctx = outer
	}
}

// outerOf returns the context that a context of WithCancel, WithTimeout and the like was made of. These embed it as
// an exported field. ok is false for any other context.
func outerOf(ctx context.Context) (outer context.Context, ok bool) {
	v := reflect.ValueOf(ctx)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil, false
	}
	switch t := v.Type().Elem(); {
	case t.PkgPath() != "context":
		return nil, false
	case t.Name() != "cancelCtx" && t.Name() != "timerCtx":
		return nil, false
	}
	field := v.Elem().FieldByName("Context")
	if !field.IsValid() || !field.CanInterface() {
		return nil, false
	}
	outer, ok = field.Interface().(context.Context)
	return outer, ok
}
