package checkup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// newest is how many of the newest records are asked for.
const newest = 3

// records asks for records by name, and computes from each value what its CID has to be:
// so it is what its author wrote.
func (c *checkup) records(ctx context.Context) (string, error) {
	wanted := c.Records
	var page struct {
		Records []struct {
			URI syntax.ATURI `json:"uri"`
		} `json:"records"`
	}
	if err := c.into(ctx, fmt.Sprintf("/api/v1/expressions?limit=%d", newest), &page); err != nil {
		return "", err
	}
	for _, r := range page.Records {
		wanted = append(wanted, r.URI)
	}
	if len(wanted) == 0 && !c.Empty {
		return "", errors.New("there are no records")
	}
	for _, uri := range wanted {
		if err := c.record(ctx, uri); err != nil {
			return "", fmt.Errorf("%s: %w", uri, err)
		}
	}
	return fmt.Sprintf("%d, each with the CID of its value", len(wanted)), nil
}

func (c *checkup) record(ctx context.Context, uri syntax.ATURI) error {
	namespace, name, ok := cutLast(string(uri.Collection()), ".")
	if !ok {
		return errors.New("names no record")
	}
	query := namespace + ".get" + strings.ToUpper(name[:1]) + name[1:]
	var got struct {
		URI   syntax.ATURI    `json:"uri"`
		CID   string          `json:"cid"`
		Value json.RawMessage `json:"value"`
	}
	if err := c.into(ctx, "/xrpc/"+query+"?uri="+url.QueryEscape(string(uri)), &got); err != nil {
		return err
	}
	if got.URI != uri {
		return fmt.Errorf("is answered with %s", got.URI)
	}
	is, err := address(got.Value)
	if err != nil {
		return err
	}
	if is != got.CID {
		return fmt.Errorf("has a value whose CID is %s, not %s", is, got.CID)
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 || i == len(s)-len(sep) {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// address is the CID of a value in JSON.
func address(value json.RawMessage) (string, error) {
	decoded, err := atdata.UnmarshalJSON(value)
	if err != nil {
		return "", fmt.Errorf("decode the value: %w", err)
	}
	block, err := atdata.MarshalCBOR(decoded)
	if err != nil {
		return "", fmt.Errorf("encode the value: %w", err)
	}
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	return sum.String(), err
}
