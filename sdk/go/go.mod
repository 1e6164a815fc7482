module wafermon/monitoring

go 1.21
