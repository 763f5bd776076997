// Command etcd is the etcd server, built from its Go module, with the command line of the released program.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
