package client

import "context"

const exportPath = "/v1/export"

// Exports says how the exports of events go; there may be none.
func (c *Client) Exports(ctx context.Context) ([]Sink, error) {
	return pages[Sink](ctx, c, exportPath, nil)
}

// TestExport has an event made and waits until it has arrived; ErrNotFound if events are exported nowhere.
func (c *Client) TestExport(ctx context.Context) (ExportTest, error) {
	var out ExportTest
	return out, c.call(ctx, request{method: "POST", path: exportPath + "/test"}, &out)
}

// ReplayDeadLetters has documents sent again that were refused for good; ErrNotFound as above.
func (c *Client) ReplayDeadLetters(ctx context.Context) (ExportReplay, error) {
	var out ExportReplay
	return out, c.call(ctx, request{method: "POST", path: exportPath + "/replay"}, &out)
}
