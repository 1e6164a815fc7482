module wafer-map

go 1.21

require wafermon/monitoring v0.0.0

replace wafermon/monitoring => ../../../sdk/go
