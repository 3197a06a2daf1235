package simulate_test

import (
	"errors"
	"fmt"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// A world with a corpus in it, served on loopback.
func Example() {
	world, err := simulate.NewWorld(simulate.Config{Seed: 1})
	if err != nil {
		panic(err)
	}
	defer world.Close()
	server := simulate.NewServer(world, simulate.ServerConfig{})
	if err := server.Start("127.0.0.1:0"); err != nil {
		panic(err)
	}
	defer server.Stop()

	generator, err := simulate.NewGenerator(world, simulate.Script{Records: 500, PerCommit: 10, Edits: 20})
	if err != nil {
		panic(err)
	}
	defer generator.Stop()
	for {
		if _, err := generator.Step(); errors.Is(err, simulate.ErrDone) {
			break
		} else if err != nil {
			panic(err)
		}
	}
	held := 0
	for range world.Records(simulate.View{}) {
		held++
	}
	fmt.Println(held > 400, world.LastSeq() > 50)
	// Output: true true
}
