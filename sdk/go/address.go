//go:build unix

package monitoring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
)

// aim takes the sidecar's address; a bad one is said once, and the default serves.
func (s *SDK) aim(url string) {
	parts := urlForm.FindStringSubmatch(url)
	if parts != nil && parts[5] != "" {
		if port, _ := strconv.Atoi(parts[5]); port < 1 || port > 65535 {
			parts = nil
		}
	}
	if parts == nil {
		s.say("not a sidecar's url: %q; using %s", url, defaultURL)
		parts = urlForm.FindStringSubmatch(defaultURL)
	}
	if parts[1] != "" {
		s.network, s.address = "unix", parts[1]
		return
	}
	host := first(parts[3], parts[4])
	s.network, s.address = "tcp", net.JoinHostPort(host, first(parts[5], map[string]string{"tcp": "7411", "tls": "7413"}[parts[2]]))
	if parts[2] == "tls" {
		s.tls = s.tlsConfig(host)
	}
}

// tlsConfig reads the authorities at once; the client's certificate at each connection, since it may be renewed.
func (s *SDK) tlsConfig(host string) *tls.Config {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	authorities, cert, key := os.Getenv("WAFERMON_TLS_CA"), os.Getenv("WAFERMON_TLS_CERT"), os.Getenv("WAFERMON_TLS_KEY")
	if authorities != "" {
		config.RootCAs = x509.NewCertPool()
		pem, err := os.ReadFile(authorities)
		if err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			s.say("can't use the file of WAFERMON_TLS_CA: %s: %v", authorities, err)
		}
	}
	if cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, first(key, cert))
			if err != nil {
				return nil, fmt.Errorf("can't use the files of WAFERMON_TLS_CERT and WAFERMON_TLS_KEY: %w", err)
			}
			return &pair, nil
		}
	}
	return config
}

func (s *SDK) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, s.network, s.address)
	if err != nil || s.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, s.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() == nil {
			s.say("no TLS with the sidecar: %v", err)
		}
		return nil, err
	}
	return secure, nil
}

func (s *SDK) hello(client string) []byte {
	e := &encoder{buf: []byte(`{"v":2,"type":"hello"`), most: 512}
	e.text("client", client)
	e.buf = append(e.buf, s.origin...)
	e.text("sdk", "go/"+Version)
	e.buf = append(e.buf, `,"ack":true`...)
	if s.token != "" {
		e.text("token", s.token)
	}
	s.state.Lock()
	if s.compress {
		e.buf = append(e.buf, `,"compress":["zlib"]`...)
	}
	s.state.Unlock()
	return append(e.buf, "}\n"...)
}
