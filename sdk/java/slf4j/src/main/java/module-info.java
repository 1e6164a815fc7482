/** An SLF4J 2 provider that sends what is logged to the wafermon sidecar. */
module wafermon.sdk.slf4j {
    requires transitive wafermon.sdk;
    requires transitive org.slf4j;

    exports wafermon.sdk.slf4j;

    provides org.slf4j.spi.SLF4JServiceProvider with wafermon.sdk.slf4j.MonitoringServiceProvider;
}
