#!/usr/bin/perl
# Guards: listening sockets that the service manager hands over by name are used, as far as they are what the settings say, and live through reload and upgrade.
use strict;
use warnings;
use HyperMesh;
use HyperSd;
use HyperTest;
use IO::Socket::IP ();
use IO::Socket::UNIX ();
use Manager;
use ProxyTest;
use Test::More;

sub listener {
	my ($host, $port) = @_;
	return IO::Socket::IP->new(LocalHost => $host // '127.0.0.1', LocalPort => $port // 0, Listen => 64, ReuseAddr => 1, V6Only => 1) // die "listen: $!";
}
# How many sockets the process has that are one of these.
sub same_sockets {
	my ($pid, @sockets) = @_;
	my %inode = map { (stat $_)[1] => 1 } @sockets;
	return scalar grep { (readlink($_) // '') =~ /^socket:\[(\d+)\]$/ && $inode{$1} } glob "/proc/$pid/fd/*";
}
sub answers { my ($port, $path) = @_; return scalar `curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:$port$path 2>&1` }

# All of the proxy's; each port is taken already, so a second bind would fail
{
	my ($relay, $rpc, $status) = map { listener() } 1 .. 3;
	my $p = proxy(workers => 2, endpoint => '127.0.0.1:' . $relay->sockport, outer => 'metrics = { bind_address = "127.0.0.1:' . $status->sockport . '"; };',
		start => 0, wrap => [ handed(status => $status, relay => $relay, rpc => $rpc) ]);
	my $settings = $p->{settings} =~ s/(jsonrpc_server = \{ bind_address = )"127\.0\.0\.1:0"/qq($1"127.0.0.1:) . $rpc->sockport . '"'/re;
	write_file("$p->{dir}/001.cfg", $settings);
	$p->launch;
	is($p->{port}, $relay->sockport, 'relay: its port');
	is($p->{rpc}, $rpc->sockport, 'rpc: its port');
	is($p->{d}->ready('metrics_port'), $status->sockport, 'status: its port');
	is(same_sockets($p->{d}->pid, $relay, $rpc, $status), 3, 'the process has each socket, once');
	is(answers($status->sockport, '/readyz'), "serving\n", 'status is served');
	my ($a, $b) = $p->pair;
	joined($a, $b, 'a pair over relay, asked for over rpc');
	$p->{d}->signal('HUP');
	isnt($p->{d}->wait_log(qr/ reloaded changed=0 needs_restart=0/), undef, 'a reload finds nothing new');
	joined($p->pair, 'a pair after it');
	$p->{d}->signal('USR2');
	isnt($p->{d}->wait_log(qr/ info upgraded /, 30), undef, 'an upgrade');
	ok(wait_until(sub { $p->{d}->count_log(qr/ info ready /) == 2 }, 30), 'the new program is ready');
	joined($a, $b, 'the pair of before lives');
	joined($p->pair, 'a new one');
	is(same_sockets($p->{d}->pid, $relay, $rpc, $status), 3, 'on the same sockets, each once');
	close $_ for $a, $b;
	is($p->{d}->stop, 0, 'it ends');
	ok(connect_to($_->sockport), 'the manager\'s socket is still there') for $relay, $rpc, $status;
}
# One of two addresses of a name comes, the other one is bound
{
	my $port = free_port();
	my $relay = listener('127.0.0.1', $port);
	my $p = proxy(workers => 1, endpoint => "localhost:$port", wrap => [ handed(relay => $relay) ]);
	joined($p->pair, 'the address that came');
	like($p->log_text, qr/ info activated socket=relay port=$port sockets=1 bound=[01]$/m, 'the log says what came');
	SKIP: {
		my $v6 = IO::Socket::IP->new(PeerHost => '::1', PeerPort => $port) or skip 'no IPv6 here', 1;
		ok($v6, 'the one that did not');
	}
}
# The other programs
{
	my $sd = sd_new();
	my $rpc = listener('127.0.0.1', $sd->{port});
	my $d = $sd->start_sd(wrap => [ handed(rpc => $rpc) ]);
	is(ref $sd->call('getRecords', { after => '' })->{result}, 'ARRAY', 'sd serves on it');
	is(same_sockets($d->pid, $rpc), 1, 'and has it');
	is($d->stop, 0, 'sd ends');
}
{
	my $mesh = mesh(directory => 'json', start => 0);
	my @l = map { listener('127.0.0.1', $mesh->{port}{$_}) } 'hd-1.rpc', 'hd-1.grpc';
	my $d = start('hd-1', [ handed(rpc => $l[0], grpc => $l[1]), program('hyper'), 'server', 'run' ], env => { HYPER_SETTINGS => "$mesh->{dir}/hd-1" });
	my $r = $mesh->call('hd-1._ping');
	ok(exists $r->{result}, 'hyper serves on rpc') or diag(json_text($r), $d->log_tail);
	is(same_sockets($d->pid, @l), 2, 'and has both');
}
# What is not as the settings say is refused, with words
sub refused {
	my ($what, $re, %opt) = @_;
	my @pairs = @{ $opt{handed} };
	my $p = proxy(workers => 1, start => 0, endpoint => $opt{endpoint} // '127.0.0.1:' . $pairs[1]->sockport, outer => $opt{outer} // '');
	my ($exit, $out, $err) = run_program([ handed(@pairs), program('proxy'), 'run', 'public' ], env => { PROXY_SETTINGS => $p->{dir} });
	is($exit, 78, "$what: wrong settings");
	like($err, $re, "$what: says why");
	return;
}
my $l = listener();
refused('a name of the unit\'s file', qr/socket \\?"hyper-proxy\.socket\\?" .*FileDescriptorName= must be relay, rpc or status/, handed => [ 'hyper-proxy.socket' => $l ]);
refused('another port', qr/listens on 127\.0\.0\.1:\d+, but public\.internal_bind_address is 127\.0\.0\.1:1: make them the same/, handed => [ relay => $l ], endpoint => '127.0.0.1:1');
refused('another address', qr/is \[::1\]:\d+: make them the same/, handed => [ relay => $l ], endpoint => '[::1]:' . $l->sockport);
refused('twice the same', qr/make them the same/, handed => [ relay => $l, relay => $l ]);
refused('a setting that is not there', qr/the settings have no metrics\.bind_address/, handed => [ status => $l ], endpoint => '127.0.0.1:0');
my $dgram = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 0, Proto => 'udp') or die $!;
refused('no listener', qr/is no TCP socket that listens/, handed => [ relay => $dgram ]);
my $unix = IO::Socket::UNIX->new(Local => tmp() . '/unix', Listen => 1) or die $!;
refused('a UNIX socket', qr/is no TCP socket that listens/, handed => [ relay => $unix ], endpoint => '127.0.0.1:0');
SKIP: {
	my $dual = IO::Socket::IP->new(LocalHost => '::', LocalPort => 0, Listen => 4, V6Only => 0) or skip 'no IPv6 here', 2;
	refused('[::] for IPv4 too', qr/BindIPv6Only=ipv6-only/, handed => [ relay => $dual ], endpoint => '[::]:' . $dual->sockport);
}
# Somebody else's are not ours
{
	my $p = proxy(workers => 1, wrap => [ handed(relay => $l, pid => 1) ]);
	isnt($p->{port}, $l->sockport, 'sockets for another process are left alone');
	joined($p->pair, 'and it serves');
}
hyper_done();
