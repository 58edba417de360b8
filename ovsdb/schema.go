package ovsdb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// checkSchema asks the server for its schema over a connection of its own and returns a *SchemaError when it does not fit. The
// library refuses such a server too, but keeps the schema to itself and stops at the first column of each table.
func checkSchema(ctx context.Context, address string, config *tls.Config) error {
	schema, err := fetchSchema(ctx, address, config)
	if err != nil {
		return err
	}
	e := &SchemaError{Version: schema.Version}
	for table, row := range rowTypes() {
		have := schema.Table(table)
		if have == nil {
			e.Missing = append(e.Missing, table)
			continue
		}
		t := reflect.TypeOf(row).Elem()
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("ovsdb")
			column := have.Column(name)
			if column == nil {
				e.Missing = append(e.Missing, table+"."+name)
				continue
			}
			if is, want := ovsdb.NativeType(column), t.Field(i).Type; is != want {
				e.Other = append(e.Other, fmt.Sprintf("%s.%s: want %s, have %s", table, name, want, is))
			}
		}
	}
	if len(e.Missing) == 0 && len(e.Other) == 0 {
		return nil
	}
	slices.Sort(e.Missing)
	slices.Sort(e.Other)
	return e
}

// dialAddress connects without the library. For ssl it has the TLS handshake behind it when it returns.
func dialAddress(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	network, addr, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, "ssl:") {
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

func fetchSchema(ctx context.Context, address string, config *tls.Config) (schema ovsdb.DatabaseSchema, err error) {
	conn, err := dialAddress(ctx, address, config)
	if err != nil {
		return schema, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	if err := json.NewEncoder(conn).Encode(map[string]any{"method": "get_schema", "params": []string{databaseName}, "id": 0}); err != nil {
		return schema, err
	}
	var reply struct {
		Result json.RawMessage `json:"result"`
		Error  any             `json:"error"`
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return schema, err
	}
	if reply.Error != nil {
		return schema, fmt.Errorf("get_schema: %v", reply.Error)
	}
	if err := json.Unmarshal(reply.Result, &schema); err != nil {
		return schema, errors.Join(errors.New("get_schema: unreadable answer"), err)
	}
	return schema, nil
}
