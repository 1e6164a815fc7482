/** A handler of java.util.logging: {@code Logger.getLogger("").addHandler(new MonitoringHandler(sdk))}. */
package wafermon.sdk.logging;
