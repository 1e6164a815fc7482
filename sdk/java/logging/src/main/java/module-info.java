/** A handler of java.util.logging that sends records to the wafermon sidecar. */
module wafermon.sdk.logging {
    requires transitive wafermon.sdk;
    requires transitive java.logging;

    exports wafermon.sdk.logging;
}
