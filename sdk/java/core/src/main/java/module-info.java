/** The Java SDK of wafermon: events, metrics, progress, resources and spans for the sidecar. */
module wafermon.sdk {
    exports wafermon.sdk;
}
