// Marks the root of the module. The dependencies are in v3.5.mod, v3.6.mod and v3.7.mod, one for each
// line of clientv3: go build -modfile=v3.6.mod
module ordinal.invalid/interop

go 1.24
