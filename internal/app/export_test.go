package app

import "reflect"

// FileType is the type of the configuration file, for a test that compares it with the reference.
var FileType = reflect.TypeFor[file]()
