from twisted.application.service import ServiceMaker

wafermon = ServiceMaker("wafermon", "wafermon.tap", "a monitoring sidecar", "wafermon")
