#!/usr/bin/perl
# Only a client whose certificate is of the CA and names a permitted operator is served, and each other one is told why.
use strict;
use warnings;
use HyperTest;
use IO::Socket::SSL ();
use RpcEcho;
use Test::More;

my $dir = certs();
my $d = echo_start(tls => 'hd-1', own => 'hd-1', bind => 'localhost:0');
my $port = $d->ready('port');
my $url = "https://hd-1:$port/jsonrpc";

my $r = rpc($url, 'peer', {}, cert => 'hd-1');
is($r->{http}, 200, 'own certificate: served');
is($r->{result}{names}[0], 'hd-1', 'the handler sees the names');
my ($rc, $out) = run_program([ 'openssl', 'x509', '-in', "$dir/hd-1.crt", '-outform', 'DER', '-out', tmp() . '/leaf.der' ]);
($rc, $out) = run_program([ 'sha256sum', tmp() . '/leaf.der' ]);
is($r->{result}{fingerprint}, substr($out, 0, 64), 'and the fingerprint of the leaf');

$r = rpc($url, 'echo', {}, cert => 'hd-2');
is($r->{http}, 403, 'another operator: 403');
is($r->{error}{code}, 403, 'another operator: code 403');
like($r->{error}{message}, qr/hd-2.*'hd-1'.*allowed_clients/, 'another operator: what is expected');

# One that is not answered at all: curl's words for it.
sub refused {
	my ($name, $why, @args) = @_;
	my ($code, $o, $err) = run_program([ 'curl', '-sS', '--noproxy', '*', '--max-time', 20, '--resolve', "hd-1:$port:127.0.0.1",
		'--cacert', "$dir/root.crt", '-H', 'Content-Type: application/json', '-d', '{}', @args, $url ]);
	isnt($code, 0, "$name: refused");
	like($err, $why, "$name: with an alert") or diag("$code $o");
	is($o, '', "$name: no answer");
	return;
}
refused('no certificate', qr/alert certificate required/, '--tlsv1.3');
refused('no certificate, TLS 1.2', qr/alert handshake failure/, '--tls-max', '1.2');

# Another CA with the same names
my $t = tmp();
for (
	[ 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$t/evil.key", '-out', "$t/evil-ca.crt", '-subj', '/CN=evil', '-days', '2' ],
	[ 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$t/self.key", '-out', "$t/self.crt", '-subj', '/CN=hd-1', '-addext', 'subjectAltName=DNS:hd-1', '-days', '2' ],
	[ 'req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$t/forged.key", '-out', "$t/forged.csr", '-subj', '/CN=hd-1' ],
	[ 'x509', '-req', '-in', "$t/forged.csr", '-CA', "$t/evil-ca.crt", '-CAkey', "$t/evil.key", '-CAcreateserial', '-out', "$t/forged.crt", '-days', '2' ],
    ) {
	my ($code, undef, $err) = run_program([ 'openssl', @$_ ]);
	is($code, 0, "openssl $_->[0]") or diag($err);
}
refused('self-signed', qr/alert unknown ca/, '--cert', "$t/self.crt", '--key', "$t/self.key");
refused('of another CA', qr/alert unknown ca/, '--cert', "$t/forged.crt", '--key', "$t/forged.key");
refused('TLS 1.1', qr/version|protocol/, '--tls-max', '1.1', '--tlsv1.0', '--ciphers', 'DEFAULT@SECLEVEL=0', '--cert', "$dir/hd-1.crt", '--key', "$dir/hd-1.key");
serves_on($d, 'after refused certificates', cert => 'hd-1');

# What the reference's peers can speak, and what nobody may
for my $c (
	[ 'TLS 1.2 with RSA key exchange', 'TLSv1_2', SSL_cipher_list => 'AES128-GCM-SHA256' ],
	[ 'TLS 1.2 with ECDHE', 'TLSv1_2', SSL_cipher_list => 'ECDHE-RSA-AES128-GCM-SHA256' ],
	[ 'TLS 1.3', 'TLSv1_3' ],
	[ 'TLS 1.3 with P-521', 'TLSv1_3', SSL_ecdh_curve => 'P-521' ],
    ) {
	my ($name, $version, @opt) = @$c;
	my $s = tls_connect($port, 'hd-1', SSL_version => $version, @opt);
	ok($s, "$name: connected") or diag($IO::Socket::SSL::SSL_ERROR), next;
	print $s request('echo', { v => $version }, head => "Connection: close\r\n");
	local $/;
	my $data = <$s>;
	like($data, qr/"v":"$version"/, "$name: served");
	ok(!$s->get_session_reused, "$name: no resumption");
	close $s;
}
ok(!tls_connect($port, 'hd-1', SSL_version => 'TLSv1_2', SSL_cipher_list => 'AES128-SHA'), 'a CBC cipher: refused');
{
	my $cache = IO::Socket::SSL::Session_Cache->new(4);
	my @reused;
	for my $version ('TLSv1_2', 'TLSv1_3') {
		for (1, 2) {
			my $s = tls_connect($port, 'hd-1', SSL_version => $version, SSL_session_cache => $cache) or last;
			print $s request('echo', {}, head => "Connection: close\r\n");
			my @all = <$s>;
			push @reused, $s->get_session_reused ? 1 : 0;
		}
	}
	is_deeply(\@reused, [ 0, 0, 0, 0 ], 'no session is ever resumed');
}
{
	my $keys = 'sleep 1; echo R; sleep 1'; # lasts: s_client takes its command between two handshakes and says nothing before
	my ($code, $o, $err) = run_program([ 'sh', '-c', "($keys) | openssl s_client -connect 127.0.0.1:$port -tls1_2 "
		. "-CAfile $dir/root.crt -cert $dir/hd-1.crt -key $dir/hd-1.key -cert_chain $dir/hd-1.crt 2>&1" ]);
	like($o, qr/RENEGOTIATING/, 'renegotiation: asked for');
	like($o, qr/RENEGOTIATING\n.*:no renegotiation:/, 'renegotiation: refused');
	unlike($o, qr/Compression: (?!NONE)/, 'no compression');
}

# Keep-alive, pipelining and big bodies over TLS
{
	my $s = tls_connect($port, 'hd-1') or die $IO::Socket::SSL::SSL_ERROR;
	my $many = join '', map { request('echo', { n => $_, pad => 'x' x 3000 }, id => "p$_", head => $_ == 60 ? "Connection: close\r\n" : '') } 1 .. 60;
	my ($at, $data) = (0, '');
	$s->blocking(0);
	wait_until {
		my $put = $at < length $many ? syswrite $s, $many, 16384, $at : 0;
		$at += $put if $put;
		my $got = sysread $s, $data, 65536, length $data;
		return defined $got && $got == 0;
	} 20;
	is_deeply([ map { json_value($_->[2])->{id} } answers($data) ], [ map { "p$_" } 1 .. 60 ], 'pipelining over TLS: all, in order');
	close $s;

	my $big = 'x' x (4 * 1024 * 1024 - 200);
	$r = rpc($url, 'echo', { big => $big }, cert => 'hd-1');
	is(length($r->{result}{big} // ''), length $big, 'a body just below 4 MiB over TLS');
	$r = rpc($url, 'echo', { big => 'x' x 5000000 }, cert => 'hd-1');
	is($r->{http}, 413, '5 MB over TLS: 413');
	like($r->{error}{message}, qr/limit is 4194304/, '5 MB over TLS: says the limit');
}
serves_on($d, 'after big bodies', cert => 'hd-1');

# Not TLS at all
{
	my ($end, @a) = exchange($port, "POST /jsonrpc HTTP/1.1\r\nHost: x\r\n\r\n");
	like($end, qr/eof|reset/, 'plain HTTP on the TLS port: ended');
	($end, @a) = exchange($port, "\x16\x03\x01\xff\xff" . 'A' x 70000);
	like($end, qr/eof|reset|error/, 'a broken handshake: ended');
	my $silent = connect_to($port);
	my $started = time;
	my ($data, $how) = read_to_end($silent, 15);
	is($how, 'eof', 'a silent client is cut');
	cmp_ok(time - $started, '<=', 8, 'soon');
}
serves_on($d, 'after no TLS', cert => 'hd-1');
is($d->stop, 0, 'ends with 0');

# Who may call, as set
my $list = echo_start(tls => 'hd-1', own => 'hd-1', allow => 'sd-1,hd-2');
$url = 'https://hd-1:' . $list->ready('port') . '/jsonrpc';
is(rpc($url, 'echo', {}, cert => 'hd-2')->{http}, 200, 'allowed_clients: one of the list');
is(rpc($url, 'echo', {}, cert => 'hd-1')->{http}, 403, 'allowed_clients replaces the own name');
like(rpc($url, 'echo', {}, cert => 'ls-1')->{error}{message}, qr/sd-1, hd-2/, 'allowed_clients: named in the refusal');
my $any = echo_start(tls => 'sd-1');
my ($status, $body) = curl('--cacert', "$dir/root.crt", '--cert', "$dir/ls-1.crt", '--key', "$dir/ls-1.key", '--resolve', 'sd-1:' . $any->ready('port') . ':127.0.0.1',
	'-H', 'Content-Type: application/json', '-d', '{"jsonrpc":"2.0","method":"echo","params":{},"id":"1"}', 'https://sd-1:' . $any->ready('port') . '/jsonrpc');
is($status, 200, 'no own name: any certificate of the CA');
my $open = echo_start(tls => 'hd-1', own => 'hd-1', verify => 0);
$r = rpc('https://hd-1:' . $open->ready('port') . '/jsonrpc', 'peer');
is($r->{http}, 200, 'verify_client = false: no certificate needed');
is_deeply($r->{result}{names}, [], 'and none is seen');
$_->stop for $list, $any, $open;

# Settings that cannot work are said at the start
my $key = write_file("$t/open.key", read_file("$dir/hd-1.key"));
chmod 0644, $key;
for my $c (
	[ 'a key that all may read', { key => $key }, qr/open\.key may be used by everybody.*chmod/ ],
	[ 'a missing key', { key => "$t/none.key" }, qr/key file .*none\.key: No such file/ ],
	[ 'the key of another', { key => "$dir/hd-2.key" }, qr/does not belong to certificate_file/ ],
	[ 'a key of another type', { key => "$dir/hd-1-sign.key" }, qr/does not belong to certificate_file/ ],
	[ 'a certificate that is none', { cert => "$dir/hd-1.key" }, qr/certificate file .*hd-1\.key.*PEM/ ],
	[ 'a CA that is a folder', { ca => $dir }, qr/CA certificate file.*not a regular file/ ],
    ) {
	my ($name, $opt, $why) = @$c;
	my %all = (ca => "$dir/root.crt", cert => "$dir/hd-1.crt", key => "$dir/hd-1.key", %$opt);
	my ($code, undef, $err) = run_program([ build() . '/t/unit/rpc_echo', map { "--$_=$all{$_}" } sort keys %all ]);
	is($code, 78, "$name: exit status 78");
	like($err, $why, "$name: in words");
}
hyper_done();
