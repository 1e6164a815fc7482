/**
 * The Java SDK of wafermon.
 *
 * <p>{@link wafermon.sdk.MonitoringSDK} is where to begin. A call encodes its message and puts it into a ring; one sender
 * thread for each SDK numbers what is in the ring, sends it, and keeps it until the sidecar acknowledges it.
 */
package wafermon.sdk;
