# RpcEcho.pm - starts t/unit/rpc_echo and speaks to it in raw bytes, over TCP or TLS
package RpcEcho;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;
use IO::Socket::SSL ();
use Test::More;

our @EXPORT = qw(echo_start request answers exchange tls_connect serves_on echo_fds_settle);

my $n = 0;

# Options become --key=value; tls => NAME takes that operator's certificate.
sub echo_start {
	my (%opt) = @_;
	if (my $name = delete $opt{tls}) {
		my $dir = certs();
		%opt = (ca => "$dir/root.crt", cert => "$dir/$name.crt", key => "$dir/$name.key", %opt);
	}
	my $d = start('echo' . ++$n, [ build() . '/t/unit/rpc_echo', map { "--$_=$opt{$_}" } sort keys %opt ],
		env => { ASAN_OPTIONS => ($ENV{ASAN_OPTIONS} // '') . ':detect_leaks=1' });
	$d->{base_fds} = $d->ready('fds');
	return $d;
}

# Bytes of a POST; options: head => extra header lines, no_length, id.
sub request {
	my ($method, $params, %opt) = @_;
	my $body = $opt{body} // json_text({ jsonrpc => '2.0', method => $method, params => $params // {}, id => $opt{id} // '1' });
	my $length = $opt{no_length} ? '' : 'Content-Length: ' . length($body) . "\r\n";
	return "POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n$length" . ($opt{head} // '') . "\r\n$body";
}

# All responses in a byte string: [status, headers, body], ...
sub answers {
	my ($data) = @_;
	my @list;
	while ($data =~ s{^HTTP/1\.1 (\d+) [^\r\n]*\r\n(.*?\r\n)??\r\n}{}s) {
		my ($status, $head) = ($1, $2 // '');
		my $len = $head =~ /^Content-Length: (\d+)\r$/mi ? $1 : 0;
		push @list, [ $status, $head, substr($data, 0, $len, '') ];
	}
	push @list, [ 'junk', '', $data ] if length $data;
	return @list;
}

# Sends bytes (a list: one after the other), reads to the end. (how it ended, answers)
sub exchange {
	my ($port, $bytes, $seconds) = @_;
	my $s = connect_to($port);
	local $SIG{PIPE} = 'IGNORE';
	for (ref $bytes ? @$bytes : $bytes) {
		my $at = 0;
		while ($at < length) {
			my $put = syswrite $s, $_, 65536, $at;
			last if !defined $put;
			$at += $put;
		}
	}
	my ($data, $end) = read_to_end($s, $seconds);
	return ($end, answers($data));
}

# A TLS connection as operator `cert` (undef: without), or undef with $IO::Socket::SSL::SSL_ERROR.
sub tls_connect {
	my ($port, $cert, %opt) = @_;
	my $dir = certs();
	return IO::Socket::SSL->new(
		PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10, SSL_ca_file => "$dir/root.crt",
		SSL_verifycn_name => 'hd-1', SSL_verifycn_scheme => 'http', SSL_hostname => 'hd-1',
		defined $cert ? (SSL_cert_file => "$dir/$cert.crt", SSL_key_file => "$dir/$cert.key") : (), %opt);
}

# A fresh call works, and the descriptors of the server return to what they were before the first connection.
sub serves_on {
	my ($d, $what, %opt) = @_;
	my $port = $d->ready('port');
	my $url = $opt{cert} ? "https://hd-1:$port/jsonrpc" : "http://127.0.0.1:$port/jsonrpc";
	my $r = rpc($url, 'echo', { still => 'here' }, %opt);
	is(($r->{result} // {})->{still}, 'here', "$what: the server serves on") or diag(explain($r));
	return echo_fds_settle($d, $what);
}

sub echo_fds_settle {
	my ($d, $what) = @_;
	ok((wait_until { $d->fds == $d->{base_fds} } 10), "$what: no descriptor is left") or diag($d->fds . " of $d->{base_fds}");
	return;
}

1;
